"""Conversions from and to other libraries: Gymnasium and stable-baselines3."""
