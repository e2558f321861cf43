"""One module for each quantization scheme."""
