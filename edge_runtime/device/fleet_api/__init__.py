"""A client of Flower's Fleet API, which imports neither flwr nor protobuf: `Link` of `link.py` is its face."""
