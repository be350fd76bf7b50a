"""Measure programs in fresh processes, and account for every byte."""
