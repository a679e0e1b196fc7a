"""Agents that adapt by gradient steps, and the trainer that they share."""
