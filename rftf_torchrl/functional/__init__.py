"""Formulas on tensors: no TensorDict, no modules, no files."""
