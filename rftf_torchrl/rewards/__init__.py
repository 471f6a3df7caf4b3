"""Rewards from success and from a value model."""
