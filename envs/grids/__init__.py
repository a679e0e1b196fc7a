"""Gridworlds and corridors, their planners and exact optima."""
