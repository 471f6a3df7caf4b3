"""Environments, episodes, and processes that run lists of episodes."""
