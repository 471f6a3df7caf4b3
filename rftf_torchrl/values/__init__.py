"""Value models and critics."""
