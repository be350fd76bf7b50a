"""A Flower app that sends what a test writes into a folder."""
