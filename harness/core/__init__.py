"""The contract between the harness and its workers. Standard library only; runs on Python 3.10."""
