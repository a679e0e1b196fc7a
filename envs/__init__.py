"""The built-in task families, announced to Gymnasium by name; imported when first made."""

from metarl.registry import register_family

register_family("metarl/BernoulliBandit-v0", "metarl.envs.bandits:BernoulliBandit")
register_family("metarl/DependentBandit-v0", "metarl.envs.dependent_bandit:DependentBandit")
register_family("metarl/GaussianBandit-v0", "metarl.envs.bandits:GaussianBandit")
register_family("metarl/GoalBandit-v0", "metarl.envs.bandits:GoalBandit")
register_family("metarl/GridNavigation-v0", "metarl.envs.grid_navigation:GridNavigation")
register_family("metarl/KrazyWorld-v0", "metarl.envs.krazy_world:KrazyWorld")
register_family("metarl/PointNavigation-v0", "metarl.envs.navigation:PointNavigation")
register_family("metarl/SparsePointNavigation-v0", "metarl.envs.navigation:SparsePointNavigation")
