"""Checkpoints: what planning reads of them, and how they reach the node that loads them."""
