"""The commands of profl-profile, one file each."""
