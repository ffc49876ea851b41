"""Heats as jobs of Slurm's and as tasks of Ray's."""
