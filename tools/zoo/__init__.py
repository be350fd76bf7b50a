"""Models of a package of PyTorch models, exported one after the other: which can be trained, and what that costs."""
