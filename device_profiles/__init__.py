"""The shared vocabulary of profl-edge: what every package says to every other.

Nothing here trains, measures or plans. The modules define frozen values, read them strictly and write them
atomically; they import the standard library and msgspec only.
"""
