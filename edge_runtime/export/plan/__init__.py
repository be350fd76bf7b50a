"""Choose each program's variant and plan its arena; from a module to all of its planned programs."""
