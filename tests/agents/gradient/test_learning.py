"""Gradient agents learn to adapt: which of two arms pays, next to negative controls.

One of two arms always pays, the other never, and only the task determines which. A policy that does
not adapt earns 0.5 on average, and one gradient step of an untrained agent earns far less than 1.
"""

from pathlib import Path

import numpy as np
import pytest

import metarl

pytestmark = [pytest.mark.learning, pytest.mark.usefixtures("one_thread")]

# The observation never changes, so the curvature is almost zero in most directions; without much
# damping a step is mostly noise along these.
TRUST_REGION = {"inner_lr": 1.0, "damping": 0.3}
LEARNERS = {
    "maml": TRUST_REGION,
    "fomaml": TRUST_REGION,
    "emaml": TRUST_REGION,
    "meta_sgd": TRUST_REGION,
    "meta_lstm": TRUST_REGION | {"inner_lr": 0.9},  # a sigmoid, so below 1
    "platipus": TRUST_REGION,
    "promp": {"inner_lr": 1.0, "learning_rate": 0.01},
    "reptile": {"inner_lr": 1.0, "outer_lr": 0.3},
}


def returns(
    agent: str,
    out: Path,
    *,
    held_out_arms: int = 0,
    split: str = "test",
    at_evaluation: dict[str, float] | None = None,
    **options: object,
) -> np.ndarray:
    """Mean return before and after each adaptation step of a short training, [K + 1]."""
    sizes = {"num_tasks": 20, "rollouts_per_task": 20, "hidden_sizes": (16,), "iterations": 30}
    run = metarl.train(
        agent,
        "metarl/GoalBandit-v0",
        task_options={
            "arms": 2,
            "p_goal": 1.0,
            "p_other": 0.0,
            "held_out_arms": held_out_arms,
        },
        out=out / "run",
        progress=False,
        **sizes | {"evaluation_steps": 1} | options,
    )
    curve, *_ = metarl.evaluate(
        run, num_tasks=500, split=split, references=False, agent_options=at_evaluation
    )
    return curve.returns.mean(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("agent", LEARNERS)
def test_one_gradient_step_finds_the_paying_arm(agent, seed, tmp_path):
    before, after = returns(agent, tmp_path, seed=seed, **LEARNERS[agent])
    assert 0.45 <= before <= 0.55
    assert after >= 0.9


@pytest.mark.parametrize("agent", LEARNERS)
def test_one_gradient_step_of_an_untrained_agent_does_not(agent, tmp_path):
    before, after = returns(agent, tmp_path, iterations=1, **LEARNERS[agent])
    assert 0.45 <= before <= 0.55
    assert 0.6 <= after <= 0.8


# Meta-SGD would learn rates above zero, so their bound is set to almost zero. The gate of Meta-LSTM
# cannot be zero.
NO_STEP = {agent: {"inner_lr": 0.0} for agent in LEARNERS} | {
    "meta_sgd": {"inner_lr": 0.0, "max_inner_lr": 1e-6},
    "meta_lstm": {"inner_lr": 1e-12},
    "platipus": {"inner_lr": 0.0, "shared_lr": 0.0},
}


@pytest.mark.parametrize("agent", LEARNERS)
def test_without_a_step_the_policy_keeps_guessing(agent, tmp_path):
    found = returns(agent, tmp_path, **LEARNERS[agent] | NO_STEP[agent])
    assert ((found >= 0.45) & (found <= 0.55)).all()


def test_rates_are_learned_from_zero(tmp_path):
    options = TRUST_REGION | {"inner_lr": 0.0, "max_inner_lr": 5.0}
    before, after = returns("meta_sgd", tmp_path, **options)
    assert 0.45 <= before <= 0.55
    assert after >= 0.9


def test_reptile_of_one_step_is_joint_training_and_learns_no_adaptation(tmp_path):
    _, after = returns("reptile", tmp_path, adaptation_steps=1, **LEARNERS["reptile"])
    assert after <= 0.75


def test_pretraining_learns_what_the_training_tasks_share_and_fails_on_others(tmp_path):
    options = {"held_out_arms": 1, "inner_lr": 1.0, "damping": 0.3}
    before, _ = returns("pretrained", tmp_path / "same", split="train", **options)
    assert before >= 0.95  # the goal is the first arm
    before, after = returns("pretrained", tmp_path / "other", **options)
    assert before <= 0.05  # the goal is the second one
    assert after <= 0.5


def test_after_pretraining_adaptation_depends_on_the_rate_alone(tmp_path):
    # Any single policy earns 0.5 over these tasks, so training has no signal.
    options = {"inner_lr": 1.0, "damping": 0.3}
    _, after = returns("pretrained", tmp_path / "trained", **options)
    assert after <= 0.75
    options["iterations"] = 1
    for rate, low, high in ((0.0, 0.45, 0.55), (1.0, 0.6, 0.8), (5.0, 0.9, 1.0)):
        _, after = returns(
            "pretrained", tmp_path / str(rate), at_evaluation={"inner_lr": rate}, **options
        )
        assert low <= after <= high
