"""The data contracts: manifests, requests, records, ids, seeds, hashes, the output and its ledger. No torch, no Ray."""
