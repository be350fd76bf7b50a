"""What runs Flower's own code: the SuperLink's process, and the clients of its Control and Runtime APIs."""
