"""CALVIN's own data format."""
