"""The built-in agents, announced by name; imported when first made."""

from metarl.agents import gradient_presets, rl2_presets  # noqa: F401  (they register presets)
from metarl.registry import register_agent

register_agent("rl2", "metarl.agents.rl2:RL2Config")
register_agent("maml", "metarl.agents.maml:MAMLConfig")
register_agent("fomaml", "metarl.agents.maml:FOMAMLConfig")
register_agent("promp", "metarl.agents.promp:ProMPConfig")
register_agent("emaml", "metarl.agents.emaml:EMAMLConfig")
register_agent("meta_sgd", "metarl.agents.meta_sgd:MetaSGDConfig")
register_agent("reptile", "metarl.agents.reptile:ReptileConfig")
register_agent("pretrained", "metarl.agents.pretrained:PretrainedConfig")
