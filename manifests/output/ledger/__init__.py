"""The ledger: finished items, in parts and pending."""
