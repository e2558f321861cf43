"""What a job will do: its models, its rows, what the output has already, and how long the rest takes."""
