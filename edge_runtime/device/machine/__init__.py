"""What the machine is and what state it is in, read and never guessed: what it does not tell is None."""
