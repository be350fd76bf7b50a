"""From profiles to promises: who can do what, in how many bytes, and who does what in a round."""
