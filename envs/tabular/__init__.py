"""Random tabular MDPs and their planners."""
