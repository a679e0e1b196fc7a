"""Trained agents outside the engine: in loops of users, as exported networks."""
