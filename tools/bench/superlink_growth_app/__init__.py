"""An app of Flower's that sends small tasks: `python -m tools.bench.superlink_growth` runs it."""
