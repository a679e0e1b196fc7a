"""The built-in task families, announced to Gymnasium by name; imported when first made."""

import gymnasium

from metarl.registry import register_family

LOCOMOTION_STEPS = 200
"""time limit of an episode, as in Finn et al. 2017 and after it; the models' own is 1000"""
META_WORLD_STEPS = 500
"""time limit of an episode, the benchmark's own"""

register_family("metarl/BernoulliBandit-v0", "metarl.envs.bandits:BernoulliBandit")
register_family("metarl/DependentBandit-v0", "metarl.envs.dependent_bandit:DependentBandit")
register_family("metarl/FewShotClassification-v0", "metarl.envs.few_shot:FewShotClassification")
register_family("metarl/GaussianBandit-v0", "metarl.envs.bandits:GaussianBandit")
register_family("metarl/GoalBandit-v0", "metarl.envs.bandits:GoalBandit")
register_family("metarl/GridNavigation-v0", "metarl.envs.grid_navigation:GridNavigation")
register_family("metarl/KrazyWorld-v0", "metarl.envs.krazy_world:KrazyWorld")
register_family(
    "metarl/InformativeArmBandit-v0", "metarl.envs.informative_bandit:InformativeArmBandit"
)
register_family("metarl/PointNavigation-v0", "metarl.envs.navigation:PointNavigation")
register_family("metarl/Sinusoid-v0", "metarl.envs.sinusoid:Sinusoid")
register_family("metarl/SparsePointNavigation-v0", "metarl.envs.navigation:SparsePointNavigation")
register_family("metarl/TMaze-v0", "metarl.envs.t_maze:TMaze")
register_family("metarl/TabularMDP-v0", "metarl.envs.tabular_mdp:TabularMDP")
register_family("metarl/TwoStep-v0", "metarl.envs.two_step:TwoStep")

for _name in ("HalfCheetahDir", "HalfCheetahVel", "HumanoidDir"):
    gymnasium.register(
        f"metarl/{_name}-v0", f"metarl.envs.locomotion:{_name}", max_episode_steps=LOCOMOTION_STEPS
    )
for _name in ("AntDir", "AntVel", "AntGoal"):
    gymnasium.register(
        f"metarl/{_name}-v0",
        f"metarl.envs.locomotion_ants:{_name}",
        max_episode_steps=LOCOMOTION_STEPS,
    )
for _name in ("Walker2DRandParams", "HopperRandParams"):
    gymnasium.register(
        f"metarl/{_name}-v0",
        f"metarl.envs.locomotion_parameters:{_name}",
        max_episode_steps=LOCOMOTION_STEPS,
    )
for _name in ("ML1", "ML10", "ML25", "ML45"):
    gymnasium.register(
        f"metarl/MetaWorld{_name}-v0",
        "metarl.envs.meta_world:MetaWorld",
        max_episode_steps=META_WORLD_STEPS,
        kwargs={"benchmark": _name},
    )
