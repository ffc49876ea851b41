"""How near a script's losses must be to the recorded ones, in words for its docstring.

Measured with scripts of every mode, optimizer and precision on a machine with two cores: all losses within 4e-7 of the
recorded ones, but for XLA in mixed precisions: 1.6e-5 to 3.5e-3 after 27 steps. With one core instead, after 96 steps
at batch size 32, training losses of ``mnist-cnn`` and ``deep-bn`` differed by up to 2e-3, test losses by up to 1.1e-2,
in both frameworks.
"""

from __future__ import annotations

from harness.cell_export.known import Known
from harness.core.cell import Cell

ON_A_PROCESSOR = (
    "How near: there, on as many processors, the losses are within 1e-6 of the recorded ones: the same operations in "
    "the same order. Elsewhere kernels sum in another order, and training amplifies that rounding: one processor "
    "instead of two moved losses by up to 0.01 within a hundred steps. The first epoch then tells most."
)
ON_A_GPU = (
    "How near: a GPU's kernels may sum in another order in each run, and training amplifies that rounding: losses "
    "agree in several digits in the first epoch, in fewer later. On a processor such scripts come within 1e-6 of the "
    "record."
)
IN_NARROW_TYPES_BY_XLA = (
    "How near: XLA rounds narrow values where its fusions end, and Keras's optimizer makes it fuse otherwise than the "
    "harness's own update: losses moved by up to 0.004 within thirty steps. In float32 such scripts come within 1e-6 "
    "of the record."
)
UNKNOWN = "It prints the losses alone, as none are recorded."


def nearness(cell: Cell, known: Known) -> str:
    """One paragraph."""
    if not known.epochs:
        return UNKNOWN
    if cell.target.mode == "xla" and cell.training.precision != "float32":
        return IN_NARROW_TYPES_BY_XLA
    return ON_A_PROCESSOR if cell.target.accelerator == "cpu" else ON_A_GPU
