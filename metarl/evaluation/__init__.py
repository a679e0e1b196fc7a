"""The evaluation protocol, for agents and for any policy."""
