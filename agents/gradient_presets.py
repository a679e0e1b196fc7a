"""Hyper-parameters of gradient agents by family, and what the final model reaches with them.

`experiments/README.md` says what was tried and by what it was judged. Numbers are means over
unseen tasks.
"""

from collections.abc import Mapping
from typing import Any

from metarl.registry import Preset, register_preset

RELEASED = {
    "num_tasks": 40,
    "copies": 20,
    "iterations": 100,
    "inner_rate": 0.5,
    "later_rate": 0.4,
    "later_decay": 0.5,
}
"""As released with Finn et al. 2017, but the second and third step are .4 and .2 of the first,
where the paper has half and half"""

TRPO = {"curvature_copies": 5, "damping": 1e-5}
"""A quarter of the trajectories for the curvature: iterations take less than half the time"""


def _register(agent: str, note: str, **options: Any) -> None:
    settings: Mapping[str, Any] = {**RELEASED, **options}
    register_preset(
        Preset(
            agent=agent,
            task="metarl/PointNavigation-v0",
            name="finn-2017",
            agent_options=settings,
            note=note,
        )
    )


_register("maml", "to be measured", **TRPO)
_register("fomaml", "to be measured", **TRPO)
_register("emaml", "to be measured", **TRPO)
_register("meta_sgd", "to be measured", **TRPO, highest_rate=2.0)
_register("pretrained", "to be measured", **TRPO)
_register("promp", "to be measured")
_register("reptile", "to be measured", iterations=300, later_decay=1.0)
