"""Observers of commits: each keeps one kind of account of what a run has committed."""
