"""Reading a manifest once: hashes of the samples of every valid row, rejected rows, and rows that share an id."""
