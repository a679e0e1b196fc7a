"""Rows on disk and the numbers made from them; nothing here imports torch."""
