"""A run: the Ray Data graph, what commits its receipts, and the actors beside the driver."""
