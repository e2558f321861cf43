"""The engine that renders requests with a loaded model: batch sizes, memory, launching, isolation of failures."""
