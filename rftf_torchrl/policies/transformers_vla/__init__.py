"""Policies on vision-language models of transformers."""
