"""The rounds: tasks out, updates in, averages, state on disk, and when a stage ends."""
