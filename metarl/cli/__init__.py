"""The command `metarl`."""
