"""Minibatches."""
