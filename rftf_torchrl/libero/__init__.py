"""LIBERO: its suites of tasks, state or pictures at decisions, and the official evaluation."""
