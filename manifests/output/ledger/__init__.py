"""The ledger: what is finished, in parts and on its way into parts."""
