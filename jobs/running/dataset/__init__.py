"""The Ray Data graph of a run: its Datasets, the request tables they begin with, and the receipts they end with."""
