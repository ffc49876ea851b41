"""``harness verify`` as a command: exit status 0 if all holds, else 1 with what is off and by how much."""

from __future__ import annotations

import json
import subprocess

from harness.core.training import OPTIMIZERS
from tests.process.small_sweep import Sweeper


def verify(sweeper: Sweeper, *flags: str) -> subprocess.CompletedProcess[str]:
    return sweeper.harness("verify", "--model", "model.toml", *flags)


def test_a_right_target_passes_with_every_optimizer_and_a_table_of_errors(sweeper: Sweeper) -> None:
    done = verify(sweeper, "--target", "scripted")
    assert done.returncode == 0
    assert f"{len(OPTIMIZERS)} of {len(OPTIMIZERS)} proofs passed." in done.stdout.splitlines()
    assert "FAILED" not in done.stdout + done.stderr
    for quantity in ("logits", "loss", "gradients", "losses", "parameters", "evaluation logits"):
        assert f" {quantity} " in done.stdout
    assert done.stderr.count("passed") == len(OPTIMIZERS)
    assert "nothing to catch" in done.stdout.partition("\nSynchronisation")[2]
    assert "ok, nothing to catch: the framework computes within the call" in done.stderr


def test_a_wrong_target_fails_and_a_dead_one_does_not_hide_it(sweeper: Sweeper) -> None:
    sweeper.add("wrong", "scripted_backend:WrongBackend")
    sweeper.add("dying", "scripted_backend:ScriptedBackend", AT_LOAD="exit:3")
    sweeper.add("homeless", "scripted_backend:ScriptedBackend", python="/nonexistent/python")
    flags = [part for target in ("wrong", "dying", "homeless", "scripted") for part in ("--target", target)]
    done = verify(sweeper, *flags, "--optimizer", "sgd", "--json")
    assert done.returncode == 1
    outcomes = json.loads(done.stdout)
    proofs = {proof["target"].partition(":")[0]: proof for proof in outcomes["proofs"]}
    assert {name: proof["passed"] for name, proof in proofs.items()} == {
        "wrong": False,
        "dying": False,
        "homeless": False,
        "scripted": True,
    }
    off = {quantity["name"] for quantity in proofs["wrong"]["quantities"] if quantity["error"] > quantity["tolerance"]}
    assert "parameters" in off
    assert "gradients" not in off
    assert proofs["dying"]["problem"].startswith("worker exited with status 3 during start")
    assert "/nonexistent/python" in proofs["homeless"]["problem"]
    clocks = {outcome["target"].partition(":")[0]: outcome for outcome in outcomes["synchrony"]}
    assert {name for name, clock in clocks.items() if clock["passed"]} == {"wrong", "scripted"}
    assert clocks["dying"]["reason"] == clocks["dying"]["problem"]
    assert clocks["dying"]["problem"].startswith("worker exited with status 3 during start")
    assert clocks["scripted"]["figures"]["step_seconds"] > 0


def test_where_the_worker_of_every_probe_died_it_says_which_and_why(sweeper: Sweeper) -> None:
    sweeper.add("dying", "scripted_backend:ScriptedBackend", AT_LOAD="exit:3")
    sweeper.script(("probe", "train", 1, "segfault"))
    done = verify(sweeper, "--target", "dying", "--target", "scripted", "--optimizer", "sgd")
    assert done.returncode == 1
    table = [line.split() for line in done.stdout.splitlines()]
    assert ["dying:numpy", "nothing", "measured", "FAILED"] in table
    assert ["scripted:numpy", "nothing", "measured", "FAILED"] in table
    died = "worker killed by SIGSEGV during probe; its last words: about to fall"
    assert "FAILED dying:numpy, small, sgd: worker exited with status 3 during start" in done.stdout
    assert f"FAILED scripted:numpy, small, sgd: {died}" in done.stdout
    assert "0 of 2 proofs passed." in done.stdout


def test_a_target_that_offers_nothing_of_what_was_asked_for_is_named(sweeper: Sweeper) -> None:
    sweeper.add("narrow", "scripted_backend:NarrowBackend")
    done = verify(sweeper, "--target", "narrow", "--optimizer", "adam")
    assert done.returncode == 1
    assert "narrow:numpy, small, adam: not offered: adam (not built yet)" in done.stdout
    assert "FAILED narrow:numpy: nothing of what was asked for is offered" in done.stderr


def test_a_target_whose_blocks_end_before_their_work_fails_though_it_computes_the_same(sweeper: Sweeper) -> None:
    sweeper.add("lying", "asynchronous_backend:Procrastinating")
    done = verify(sweeper, "--target", "lying", "--optimizer", "sgd")
    assert done.returncode == 1
    assert "1 of 1 proofs passed." in done.stdout
    assert "FAILED lying:numpy, synchronisation: " in done.stdout
    assert "of a block's work came after its end" in done.stdout


def test_batch_sizes_are_proven_on_a_dataset_and_a_fault_of_the_largest_is_told(sweeper: Sweeper) -> None:
    flags = ("--optimizer", "sgd", "--batch-size", "4,16", "--dataset", "small.npz")
    done = verify(sweeper, "--target", "scripted", *flags)
    assert done.returncode == 0, done.stderr
    assert "scripted:numpy at 4, small, sgd: proven: 48 steps, largest error 0" in done.stderr
    assert "3 of 3 proofs passed." in done.stdout.splitlines()
    asked = verify(sweeper, "--target", "scripted", *flags, "--json")
    sized = [proof for proof in json.loads(asked.stdout)["proofs"] if proof.get("batch_size")]
    assert [(proof["batch_size"], proof["dataset"], proof["passed"]) for proof in sized] == [
        (4, "small", True),
        (16, "small", True),
    ]


def test_plans_of_batch_sizes_and_options_of_training_are_proven_as_a_sweep_takes_them(sweeper: Sweeper) -> None:
    flags = ("--optimizer", "momentum", "--batch-size", "16,0:4,1:8", "--dataset", "small.npz")
    extras = ("--weight-decay", "0.01", "--clip-norm", "1", "--decay", "cosine", "--label-smoothing", "0.1")
    done = verify(sweeper, "--target", "scripted", *flags, *extras)
    assert done.returncode == 0, done.stderr
    words = "weight decay 0.01, gradients clipped at 1, label smoothing 0.1 and cosine decay"
    assert f"All training has {words}." in done.stdout.splitlines()
    for lane in ("scripted:numpy at 16,", "scripted:numpy at 4>8,"):
        assert f"{lane} small, momentum: proven: " in done.stderr
    assert "3 of 3 proofs passed." in done.stdout.splitlines()


def test_a_plan_that_a_target_does_not_train_is_listed_and_no_fault(sweeper: Sweeper) -> None:
    flags = ("--optimizer", "sgd", "--batch-size", "0:4,1:8", "--dataset", "small.npz")
    sweeper.add("fixed", "scripted_backend:OneSizeBackend")
    done = verify(sweeper, "--target", "fixed", *flags)
    assert done.returncode == 0, done.stderr
    assert "fixed:numpy at 4>8@1, small, sgd: not offered: plan of batch sizes (one size only)" in done.stdout
    refused = verify(sweeper, "--target", "fixed", *flags, "--decay", "odd")
    assert refused.returncode == 2
    assert "--decay: found 'odd', allowed: none, cosine, polynomial" in refused.stderr


def test_a_batch_size_beyond_the_dataset_is_refused_in_a_line(sweeper: Sweeper) -> None:
    done = verify(sweeper, "--target", "scripted", "--batch-size", "65", "--dataset", "small.npz")
    assert done.returncode == 2
    assert "--batch-size: found 65, but small has 64 images" in done.stderr
