"""Profiles as tables and as pages."""
