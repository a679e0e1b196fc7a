"""The built-in agents, announced by name; imported when first made."""

from metarl.agents import rl2_presets  # noqa: F401  (registers the presets)
from metarl.registry import register_agent

register_agent("rl2", "metarl.agents.rl2:RL2Config")
