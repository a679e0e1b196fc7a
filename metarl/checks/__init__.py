"""Behavioural checks that decide whether adaptation can be measured in an environment."""
