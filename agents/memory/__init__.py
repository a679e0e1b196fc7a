"""Agents that adapt in memory."""
