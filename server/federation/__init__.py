"""A federation on this machine: its keys, Flower's SuperLink, its devices, and what they are doing."""
