"""Tuned hyper-parameters of gradient agents by family, and the results of the final model.

`experiments/README.md` describes the search. Numbers are means over unseen tasks.
"""

from collections.abc import Mapping
from typing import Any

from metarl.registry import Preset, register_preset

RELEASED = {
    "num_tasks": 40,
    "rollouts_per_task": 20,
    "iterations": 100,
    "inner_lr": 0.5,
    "later_lr_scale": 0.4,
    "later_lr_decay": 0.5,
}
"""as released with Finn et al. 2017, but the second and third step are .4 and .2 of the first,
where the paper has half and half"""

TRPO = {"curvature_rollouts": 5, "damping": 1e-5}
"""a quarter of the rollouts for the curvature: iterations take less than half the time"""


def _register(agent: str, note: str, **options: Any) -> None:
    settings: Mapping[str, Any] = {**RELEASED, **options}
    register_preset(
        Preset(
            agent=agent,
            task="metarl/PointNavigation-v0",
            name="finn-2017",
            agent_options=settings,
            note=f"after 1 / 2 / 3 steps in unseen goals (oracle: -0.5): {note}",
        )
    )


_register(
    "maml",
    "-12.6 / -3.9 / -2.0 for two of three seeds, -14.2 / -52.3 / -5.4 for the third; 4 minutes on "
    "one core",
    **TRPO,
)
_register("fomaml", "-13.1 / -5.1 / -4.2; one seed, 3 minutes on one core", **TRPO)
_register(
    "emaml",
    "-13.8 / -31.2 / -6.3, a few goals diverge at the second step; one seed, 5 minutes on one core",
    **TRPO,
)
_register(
    "meta_sgd",
    "-12.4 / -4.1 / -1.9 for two of three seeds, -13.3 / -15.2 / -3.6 for the third; 3 minutes on "
    "one core",
    **TRPO,
    max_inner_lr=2.0,
)
_register("promp", "-12.4 / -5.2 / -4.4; one seed, 8 minutes on one busy core")
_register(
    "reptile",
    "-16.2 / -11.6 / -27.3; one seed, 7 minutes on one core; the return falls after some 150 "
    "iterations",
    iterations=300,
    later_lr_decay=1.0,
)
_register("pretrained", "falls to -151, then -37 / -21; one seed, 2 minutes on one core", **TRPO)
CHEETAH = {
    "rollouts_per_task": 10,
    "inner_lr": 0.3,
    "later_lr_scale": 0.4,
    "later_lr_decay": 0.5,
    "initial_std": 0.5,
    "gae_lambda": 0.95,
    "max_kl": 0.05,
    **TRPO,
}
for _name, _size, _note in (
    # There are two directions only.
    ("Dir", {"num_tasks": 10, "iterations": 300}, "-19 before adapting, 530 / 540 / 550"),
    ("Vel", {"num_tasks": 20, "iterations": 150}, "-258 before adapting, -175 / -167 / -161"),
):
    register_preset(
        Preset(
            agent="maml",
            task=f"metarl/HalfCheetah{_name}-v0",
            name="two-cores",
            agent_options={**CHEETAH, **_size},
            note=f"{_note} after 1 / 2 / 3 steps on 20 episodes each, one seed; 11 minutes on two "
            "cores with --workers 2",
        )
    )
register_preset(
    Preset(
        agent="maml",
        task="metarl/Sinusoid-v0",
        name="shots-5",
        agent_options={
            "iterations": 400,
            "gamma": 0.0,
            "initial_std": 0.3,
            "later_lr_scale": 0.3,
            "later_lr_decay": 0.5,
            "damping": 1e-3,
        },
        task_options={"shots": 5, "queries": 5},
        note="squared error 4.6 before adapting, 1.8 / 1.2 / 0.9 after 1 / 2 / 3 steps, one seed; "
        "4 minutes on one core",
    )
)
SUPERVISED = {
    "num_tasks": 40,
    "rollouts_per_task": 5,
    "adapt_each_rollout": True,
    "estimator": "supervised",
    "hidden_sizes": (40, 40),
    "initial_std": 0.02,
    "learn_std": False,
    "later_lr_scale": 1.0,
    "evaluation_steps": 1,
    "inner_lr": 0.3,
    "max_kl": 1.0,
    "damping": 1e-4,
    "iterations": 200,
}
"""five points of a rollout, whose values are shown, as in Finn et al. 2017, section 5.1; the outer
steps are of the Gauss-Newton kind, because the divergence of fixed Gaussians is a squared error"""
for _agent, _options, _note in (
    ("maml", {}, ".63 / .26 / .22"),
    ("meta_sgd", {}, ".52 / .14 / .11"),
    ("meta_lstm", {"later_lr_scale": 0.5}, ".48 / .16 / .13"),
):
    register_preset(
        Preset(
            agent=_agent,
            task="metarl/Sinusoid-v0",
            name="supervised-shots-5",
            agent_options={**SUPERVISED, **_options},
            task_options={"shots": 5, "queries": 5, "rewarded": "queries"},
            note=f"squared error {_note} after 1 / 5 / 10 steps on the same five points (published "
            "for MAML: .67 / .38 / .35), one seed; 3 minutes on one core",
        )
    )
register_preset(
    Preset(
        agent="platipus",
        task="metarl/SparsePointNavigation-v0",
        name="hypotheses-4",
        agent_options={
            "iterations": 200,
            "hypotheses": 4,
            "inner_lr": 0.1,
            "shared_lr": 1.0,
            "initial_spread": 0.2,
            "damping": 1e-4,
        },
        note="an unseen goal is reached in 13% of first episodes, in 20 / 29 / 36% after 1 / 2 / 3 "
        "steps on 20 episodes each, one seed; 10 minutes on one core",
    )
)
