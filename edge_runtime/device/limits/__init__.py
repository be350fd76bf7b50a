"""Memory limits: what the system allows this process, and processes started under a hard limit."""
