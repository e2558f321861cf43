"""Renders requests with a loaded model in this process: batching, memory, deadlines, isolation of failures. No Ray."""
