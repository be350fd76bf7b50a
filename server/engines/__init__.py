"""Engines: what carries the work of a round to clients and back."""
