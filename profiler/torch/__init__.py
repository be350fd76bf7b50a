"""The meter for PyTorch: the only part of the profiler whose processes import torch."""
