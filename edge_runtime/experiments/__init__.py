"""Data sets of studies on a host, found by name where --data asks for one. The wheel leaves them out."""
