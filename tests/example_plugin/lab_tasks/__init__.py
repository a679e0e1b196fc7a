"""Registers the tasks of a lab; their modules are imported when a task is first made."""

import gymnasium

import metarl

gymnasium.register("lab/Docking-v0", "lab_tasks.docking:Docking", max_episode_steps=30)

metarl.register_varied_env(
    "lab/Poles-v0",
    "CartPole-v1",
    attributes={"length": (0.25, 2.0), "force_mag": (-15.0, 15.0)},
    configure="lab_tasks.poles:follow_length",
    max_episode_steps=100,
)

metarl.register_family("lab/TwoDoors-v0", "lab_tasks.two_doors:TwoDoors")
