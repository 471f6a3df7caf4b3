"""A scripted expert for CALVIN."""
