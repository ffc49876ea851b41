"""Define a CNN once, train it identically in several frameworks, and time it honestly."""

__version__ = "0.1.0"
