"""The `flower` engine: devices of a network, which Flower's SuperLink carries the work to."""
