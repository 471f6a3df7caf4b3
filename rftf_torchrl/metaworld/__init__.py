"""Meta-World: tasks with sentences, disjoint initial states, fast images."""
