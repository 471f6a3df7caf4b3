"""CALVIN's benchmark: chains of five tasks."""
