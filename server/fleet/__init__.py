"""The fleet file, what clients may be asked to do, and the structure of the model."""
