"""From a bundle or a model to its profile, program by program."""
