"""Reading manifests: files, footers, row groups."""
