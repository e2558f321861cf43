"""What runs inside Ray workers: rendering, batch sizing, media encoding, storing."""
