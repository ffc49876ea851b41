#!/usr/bin/env bash
# All that is worth knowing of a machine with one NVIDIA GPU and JAX, in about ten minutes, into one folder.
#
#   benchmarks/on_a_gpu.sh FOLDER [PYTHON]
#
# FOLDER: a new one, such as benchmarks/results/h200-calls; run folders and JSON go there. PYTHON: an interpreter that
# has JAX with CUDA, Flax and Optax; without one the environment of the target jax-cuda is built, which needs a network.
#
# Variables: HARNESS, the command (uv run harness); DATASET (mnist; digits needs no files); SIZES, CALLS, BUDGET (of
# each search and comparison); LIKE (jax-cuda; jax-cpu tries the script where there is no GPU).
# A step that fails is told, and the next one runs; the exit status is 1 then.
set -uo pipefail

[ $# -ge 1 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
HARNESS=${HARNESS:-uv --project $(cd "$(dirname "$0")/.." && pwd) run harness}
LIKE=${LIKE:-jax-cuda} DATASET=${DATASET:-mnist} BUDGET=${BUDGET:-100s}
SIZES=${SIZES:-16,64,256,1024,4096} CALLS=${CALLS:-1,4,16,64}
mkdir -p "$1" && cd "$1" || exit 2

name=$LIKE
if [ $# -ge 2 ]; then
  name=$LIKE-system
  printf '[targets.%s]\nlike = "%s"\npython = "%s"\n' "$name" "$LIKE" "$2" >harness.toml
fi
few=${SIZES%%,*},${SIZES##*,}
failed=()

step() { # NAME SECONDS ARGUMENTS...: one command of the harness, its output beside the others
  local what=$1 limit=$2 began=$SECONDS
  shift 2
  echo "== $what: harness $*" >&2
  # shellcheck disable=SC2086  # HARNESS is a command with its arguments
  timeout "$limit" $HARNESS "$@" >"$what.txt" 2>"$what.log" || { failed+=("$what"); tail -n 3 "$what.log" >&2; }
  echo "   $((SECONDS - began)) s" >&2
}

began=$SECONDS
step doctor 60 doctor "$name"
step limits 60 limits "$name" --json
step verify 150 verify --target "$name" --model mnist-cnn --optimizer momentum --batch-size "$few" --dataset "$DATASET"
step calls 240 sweep --target "$name" --model mnist-cnn --dataset "$DATASET" --batch-size "$SIZES" \
  --steps-per-call "$CALLS" --epochs 1 --out calls
step tune 200 tune "$name" --batch-size "${SIZES%%,*}" --dataset "$DATASET" --budget "$BUDGET" --out tune
step compare 150 compare "$name" "$name@steps_per_call=${CALLS##*,}" --batch-size "${SIZES%%,*}" \
  --dataset "$DATASET" --budget "$BUDGET" --out compare

echo "$((SECONDS - began)) s in all; failed: ${failed[*]:-none}" >&2
[ ${#failed[@]} -eq 0 ]
