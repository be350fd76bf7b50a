"""From a PyTorch module to a list of layers, through `torch.export`; what cannot be captured right is refused."""
