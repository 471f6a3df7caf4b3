"""Action heads and their distributions."""
