"""The recipes: one file a command, each with its loop in sight."""
