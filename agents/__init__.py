"""The built-in agents, announced by name; imported when first made."""

import metarl.agents.gradient.presets
import metarl.agents.memory.presets
import metarl.agents.off_policy.presets  # noqa: F401  (all register presets)
from metarl.registry import register_agent, register_memory

for _name, _options in {
    "gru": "recurrent:GRUOptions",
    "lstm": "recurrent:LSTMOptions",
    "attention": "recurrent:AttentionOptions",
    "transformer": "transformer:TransformerOptions",
    "matching": "episodic:MatchingOptions",
    "prototypical": "episodic:PrototypicalOptions",
    "amortised": "amortised:AmortisedOptions",
    "belief": "belief:BeliefOptions",
    "none": "recurrent:NoMemoryOptions",
}.items():
    register_memory(_name, f"metarl.networks.{_options}")

register_agent("rl2", "metarl.agents.memory.rl2:RL2Config")
register_agent("matching_networks", "metarl.agents.memory.matching_networks:MatchingConfig")
register_agent(
    "prototypical_networks", "metarl.agents.memory.prototypical_networks:PrototypicalConfig"
)
register_agent("versa", "metarl.agents.memory.versa:VERSAConfig")
register_agent("dpt", "metarl.agents.memory.dpt:DPTConfig")
register_agent("varibad", "metarl.agents.memory.varibad:VariBADConfig")
register_agent("pearl", "metarl.agents.off_policy.pearl:PEARLConfig")
register_agent("maml", "metarl.agents.gradient.maml:MAMLConfig")
register_agent("fomaml", "metarl.agents.gradient.maml:FOMAMLConfig")
register_agent("promp", "metarl.agents.gradient.promp:ProMPConfig")
register_agent("emaml", "metarl.agents.gradient.emaml:EMAMLConfig")
register_agent("meta_sgd", "metarl.agents.gradient.meta_sgd:MetaSGDConfig")
register_agent("meta_lstm", "metarl.agents.gradient.meta_lstm:MetaLSTMConfig")
register_agent("platipus", "metarl.agents.gradient.platipus:PLATIPUSConfig")
register_agent("reptile", "metarl.agents.gradient.reptile:ReptileConfig")
register_agent("pretrained", "metarl.agents.gradient.pretrained:PretrainedConfig")
