"""Seer."""
