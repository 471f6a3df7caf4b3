"""Transforms of environments and of batches."""
