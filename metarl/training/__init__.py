"""The meta-training loop and its run folder."""
