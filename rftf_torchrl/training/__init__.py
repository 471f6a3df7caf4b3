"""Seeds, guards, checkpoints, logs."""
