"""Pens that families draw themselves with."""
