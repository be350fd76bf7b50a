"""Averages of updates, and tensors on disk."""
