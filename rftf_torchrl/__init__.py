"""RFTF as TorchRL building blocks."""
