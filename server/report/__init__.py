"""Pictures and pages of finished and running runs."""
