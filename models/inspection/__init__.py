"""What is known of a checkpoint and its pipeline before it is loaded."""
