"""The actors beside the driver, and what other processes tell them."""
