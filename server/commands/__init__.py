"""One module for each subcommand of `profl-server`."""
