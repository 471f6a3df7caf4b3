"""Settings of the recipes and their checks."""
