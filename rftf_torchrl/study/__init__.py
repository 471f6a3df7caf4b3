"""Studies: many runs of several methods as cells, their statistics and their report."""
