"""Tables of promises for experiments."""
