"""A recorded cell as a standalone script in plain TensorFlow or JAX, for those who would rather not trust a harness.

In: a cell of a plan and what its run knows of it. Out: source of a program that needs NumPy and the framework alone,
written out for this one cell, which trains from the same arrays and prints its losses beside the recorded ones.
``script`` writes the source, from the templates ``*.py.j2`` and the lines of ``*_lines``; ``arrays`` gathers the
arrays; ``known`` reads records.
"""

from harness.export.script.arrays import arrays
from harness.export.script.known import Known, known
from harness.export.script.script import EXPORTABLE, require, script

__all__ = ["EXPORTABLE", "Known", "arrays", "known", "require", "script"]
