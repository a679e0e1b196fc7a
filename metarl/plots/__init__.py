"""Figures drawn from the rows of results; nothing here imports torch."""
