"""Registers tasks, agents and a memory of a lab; their modules are imported when first used."""

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

metarl.register_memory("min_gru", "lab_tasks.min_gru:MinGRUOptions")
metarl.register_agent("momentum_maml", "lab_tasks.momentum:MomentumMAMLConfig")
metarl.register_agent("predicting_rl2", "lab_tasks.reward_prediction:RewardPredictingConfig")
metarl.register_agent("hedge", "lab_tasks.hedge:HedgeConfig")
