"""GR-MG."""
