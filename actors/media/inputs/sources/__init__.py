"""Where inputs come from: which places a manifest may name, and how files are fetched from them."""
