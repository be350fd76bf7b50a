"""Updates in files, their averages, and how these become the next weights."""
