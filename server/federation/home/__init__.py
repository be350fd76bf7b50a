"""What lies in the folder of a federation: settings, keys, certificates, its devices."""
