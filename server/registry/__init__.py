"""The device profiles that a server keeps: a folder of files, or a database."""
