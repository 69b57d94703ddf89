"""Sweeps that survive: names that a command alone decides, the state of each job, the table at the end."""
