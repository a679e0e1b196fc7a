"""Layers, memories, action heads, per-task networks, and the policies made of them."""
