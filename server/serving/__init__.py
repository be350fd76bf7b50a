"""A run inside of a process that Flower started."""
