"""The fleet file, its clients, and the structure of the model."""
