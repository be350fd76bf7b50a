"""What the device is and what state it is in, read and never guessed."""
