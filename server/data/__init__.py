"""The data set cut into the clients' parts."""
