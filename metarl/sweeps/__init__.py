"""Sweeps: many trainings of one agent on one family, with several settings and seeds."""
