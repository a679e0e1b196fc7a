"""Numerics of learning: advantages, losses, baselines, trust regions."""
