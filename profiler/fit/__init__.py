"""Find what fits a limit, by real runs under it."""
