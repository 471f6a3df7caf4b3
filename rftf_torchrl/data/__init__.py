"""Demonstrations on disk, and batches of them."""
