"""LIBERO: its suites of tasks, state or images at decisions, and the official evaluation."""
