"""Hold the exporter's own programs against PyTorch before a bundle is written."""
