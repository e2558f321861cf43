"""What an engine learns of a model on its device: batch sizes, pace and deadlines. No torch."""
