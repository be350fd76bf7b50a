"""The light client of a federation: it takes tasks from a server, trains in child processes, and sends the updates."""
