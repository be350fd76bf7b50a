"""profl-profile: what training each program of a bundle really costs on this device."""
