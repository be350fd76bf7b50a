"""profl-server: turns device profiles into a plan and runs the rounds."""
