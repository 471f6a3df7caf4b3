"""Meta-World: tasks with instructions, disjoint initial states, fast images."""
