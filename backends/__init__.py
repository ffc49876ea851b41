"""Workers and adapters: they import the standard library, NumPy, ``harness.core`` and one framework."""
