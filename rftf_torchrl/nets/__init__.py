"""Networks that policies and value models are built from."""
