"""The examples on a real FATE 1.9 to 1.11, run by scripts/fate1_jobs.py. Standard library only, so that any Python runs it."""
