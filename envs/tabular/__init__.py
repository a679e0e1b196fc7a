"""Random tabular MDPs and planning policies for them."""
