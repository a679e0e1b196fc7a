"""Bandits, their posteriors, indices and exact optima."""
