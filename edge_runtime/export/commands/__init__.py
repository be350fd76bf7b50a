"""`profl-edge export` and `profl-edge models`: options, checks, what is printed."""
