"""Measures what proofs of batch sizes are worth."""
