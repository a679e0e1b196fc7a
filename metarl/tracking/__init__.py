"""Trackers: callbacks that log trainings to services for experiments."""
