"""One module a subcommand of `profl-edge`; each imports what computes only when it is called."""
