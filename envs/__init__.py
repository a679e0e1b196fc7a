"""Registers the built-in task families with Gymnasium; their modules are imported on first use."""

import gymnasium

from metarl.registry import register_family

LOCOMOTION_STEPS = 200
"""time limit of an episode, as in Finn et al. 2017 and later work; the models' default is 1000"""
META_WORLD_STEPS = 500
"""time limit of an episode, the benchmark's default"""
VECTORS = "metarl.bridges.env_vectors"
"""makes vector environments with the arguments that those of families have"""

for _name, _module in {
    "BernoulliBandit": "bandits.multi_armed",
    "GaussianBandit": "bandits.multi_armed",
    "GoalBandit": "bandits.multi_armed",
    "DependentBandit": "bandits.dependent_arms",
    "InformativeArmBandit": "bandits.informative_arm",
    "PointNavigation": "navigation.point_navigation",
    "SparsePointNavigation": "navigation.point_navigation",
    "GridNavigation": "grids.grid_navigation",
    "KrazyWorld": "grids.krazy_world",
    "TMaze": "grids.t_maze",
    "TabularMDP": "tabular.tabular_mdp",
    "TwoStep": "two_step.two_step",
    "FewShotClassification": "few_shot.classification",
    "Sinusoid": "few_shot.sinusoid",
}.items():
    register_family(f"metarl/{_name}-v0", f"metarl.envs.{_module}:{_name}")

for _name, _module in {
    "HalfCheetahDir": "cheetah",
    "HalfCheetahVel": "cheetah",
    "HumanoidDir": "humanoid",
    "AntDir": "ants",
    "AntVel": "ants",
    "AntGoal": "ants",
    "Walker2DRandParams": "random_parameters",
    "HopperRandParams": "random_parameters",
}.items():
    gymnasium.register(
        f"metarl/{_name}-v0",
        f"metarl.envs.locomotion.{_module}:{_name}",
        max_episode_steps=LOCOMOTION_STEPS,
        vector_entry_point=f"{VECTORS}:metarl/{_name}-v0",
    )
for _name in ("ML1", "ML10", "ML25", "ML45"):
    gymnasium.register(
        f"metarl/MetaWorld{_name}-v0",
        "metarl.envs.meta_world:MetaWorld",
        max_episode_steps=META_WORLD_STEPS,
        vector_entry_point=f"{VECTORS}:metarl/MetaWorld{_name}-v0",
        kwargs={"benchmark": _name},
    )
