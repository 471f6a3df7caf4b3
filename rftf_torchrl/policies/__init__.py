"""Policies: their specs, their file, their heads, one package or module per family."""
