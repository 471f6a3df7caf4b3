"""Success rates, checks of value models and language, plots, videos."""
