"""Kills whatever takes part in a job, again and again, and compares its output with an undisturbed one."""
