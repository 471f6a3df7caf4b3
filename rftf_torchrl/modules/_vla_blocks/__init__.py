"""Blocks that GR-MG and Seer share, under the names that their checkpoints use."""
