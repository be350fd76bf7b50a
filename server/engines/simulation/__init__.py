"""The `simulation` engine: many virtual clients in PyTorch on one machine, on a GPU if there is one."""
