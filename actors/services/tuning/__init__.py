"""What is kept of a model between runs: tuning profiles and compiled code."""
