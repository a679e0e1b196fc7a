"""Tuned hyper-parameters of PEARL by family, and the results of the final model.

Numbers are means over unseen tasks.
"""

from metarl.registry import Preset, register_preset

SETTINGS = {
    "num_tasks": 64,
    "hidden_size": 64,
    "gradient_steps": 25,
    "meta_batch": 32,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "polyak": 0.01,
    "kl_coef": 0.05,
    "temperature": 0.05,
}

register_preset(
    Preset(
        agent="pearl",
        task="metarl/SparsePointNavigation-v0",
        name="episodes-6",
        # The reward does not tell paths along the circle apart until the goal is found: random
        # actions, which a high target of the entropy keeps, widen the search.
        agent_options={
            **SETTINGS,
            "iterations": 500,
            "episodes": 6,
            "gamma": 0.95,
            "reward_scale": 10.0,
            "target_entropy": 0.0,
            "replay_tasks": 1500,
        },
        note="",
    )
)
