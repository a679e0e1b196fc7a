"""Agents that learn off-policy, from a replay of earlier tasks."""
