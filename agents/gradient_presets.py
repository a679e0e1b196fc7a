"""Hyper-parameters of gradient agents by family, and what the final model reaches with them.

`experiments/README.md` says what was tried and by what it was judged.
"""

from metarl.registry import Preset, register_preset

register_preset(
    Preset(
        agent="maml",
        task="metarl/PointNavigation-v0",
        name="finn-2017",
        agent_options={"num_tasks": 20, "iterations": 300},
        note="to be measured",
    )
)
