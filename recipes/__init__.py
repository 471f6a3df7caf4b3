"""The recipes: one file per command, each of which shows its whole loop."""
