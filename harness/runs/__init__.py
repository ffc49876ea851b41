"""A run folder: its plan, its records, and who works in it."""
