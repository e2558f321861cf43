"""Checkpoints: reading what planning needs, and fetching them to the node that loads them."""
