"""The data contracts: prompt rows in, records out, ids and seeds, the output's layout, the ledger. No torch, no Ray."""
