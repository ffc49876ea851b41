"""Runs on a cluster under Slurm: heats as tasks of job arrays, and what became of them.

    options      what is asked of Slurm for each target; targets that ask the same share nodes, and so heats
    programs     sbatch, squeue, sacct, scontrol and scancel, called and read
    submissions  the arrays of a run folder, as files there; submitting what is missing
    outcomes     ends of jobs that left no record, turned into records

Slurm's own programs are called, not a library: submitit follows jobs by ``sacct`` only, so it needs accounting; it and
the others know of one submission, where a run has several, and write pickles, where a heat is a command. What is
needed is one call of ``sbatch`` and one of ``squeue``.

Records are the truth: a task's state decides nothing about a cell that has its record.
"""
