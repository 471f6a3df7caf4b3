"""CALVIN: simulator, data, scripted expert and the benchmark of chains."""
