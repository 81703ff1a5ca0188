"""Soak: a busy graph for minutes or hours, and a verdict on the memory of every process."""
