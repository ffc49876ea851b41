"""How near a script's losses must be to the recorded ones, in words for its docstring.

Measured with scripts of every mode, optimizer and precision, of ``lenet5``, ``deep-bn`` and a network of every kind of
layer, on a machine with two cores: after 27 steps at batch size 32 all losses within 4e-7 of the recorded ones, but for
Adam of Keras 3 in steps of one's own (up to 4e-6, ``deep-bn`` up to 3.6e-3) and XLA in mixed precisions (1.6e-5 to
3.5e-3). With one core instead, after 96 steps with momentum, training losses of ``mnist-cnn`` and ``deep-bn`` differed
by up to 2e-3, test losses by up to 1.1e-2, in both frameworks. An epoch of ``mnist-cnn`` that JAX 0.11 trained on an
H200 (234 steps of 256) came out within 1.8e-4 and 4e-4 by JAX 0.10 on a processor. No script was run on a GPU.
"""

from __future__ import annotations

from harness.core.cell import Cell
from harness.export.script.known import Known, has_keras_2

ON_A_PROCESSOR = (
    "How near: there, on as many processors, the losses are within 1e-6 of the recorded ones: the same operations in "
    "the same order. Elsewhere kernels sum in another order, and training amplifies that rounding: one processor "
    "instead of two moved losses by up to 0.01 within a hundred steps. The first epoch then tells most."
)
ON_A_GPU = (
    "How near: a GPU's kernels may sum in another order in each run, and training amplifies that rounding: losses "
    "agree in several digits in the first epoch, in fewer later. (An epoch recorded on an H200 came within 4e-4 on "
    "another machine's processor.)"
)
BY_THE_ADAM_OF_KERAS_3 = (
    "How near: Keras's Adam rounds its bias correction otherwise than TensorFlow's fused operation, by which the "
    "harness updates, and training amplifies that: there, within thirty steps, losses moved by up to 4e-6, in a deep "
    "network with batch normalisation by up to 0.004. The first epoch tells most."
)
BY_XLA_IN_NARROW_TYPES = (
    "How near: XLA rounds narrow values where its fusions end, and Keras's optimizer makes it fuse otherwise than the "
    "harness's own update: losses moved by up to 0.004 within thirty steps. In float32 they come within 1e-6."
)
UNKNOWN = "It prints the losses alone, as none are recorded."


def nearness(cell: Cell, known: Known) -> str:
    """One paragraph."""
    target, training = cell.target, cell.training
    if not known.epochs:
        return UNKNOWN
    if target.accelerator != "cpu":
        return ON_A_GPU
    if target.mode == "xla" and training.precision != "float32":
        return BY_XLA_IN_NARROW_TYPES
    if target.mode in ("graph", "xla") and training.optimizer.name == "adam" and not has_keras_2(cell, known.packages):
        return BY_THE_ADAM_OF_KERAS_3
    return ON_A_PROCESSOR
