"""Hyper-parameters of RL^2 by family, and what the final model reaches with them.

All were found by looking at the return in *training* tasks alone; `experiments/README.md` says
what was tried. Numbers are means over unseen tasks.
"""

from metarl.registry import Preset, register_preset

register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-10",
        agent_options={"num_tasks": 512, "iterations": 600},
        task_options={"pulls": 10},
        note="PENDING",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-100",
        agent_options={"num_tasks": 512, "iterations": 1000, "entropy_bonus": 0.01},
        task_options={"pulls": 100},
        note="PENDING",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/PointNavigation-v0",
        name="episodes-3",
        agent_options={"num_tasks": 128, "iterations": 300, "episodes": 3},
        note="PENDING",
    )
)
