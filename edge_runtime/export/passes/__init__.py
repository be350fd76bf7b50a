"""Rewrite captured layers before anything is differentiated: fewer bytes, fewer operations, the same numbers."""
