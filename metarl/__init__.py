"""Meta-reinforcement learning: task distributions, RL^2 and gradient agents on one engine."""

import lazy_loader as _lazy_loader

from metarl import clone as _clone
from metarl import plugins as _plugins
from metarl import registry as _registry

__version__ = _clone.version()

# Public names are imported from the modules that `__init__.pyi` lists when they are first used.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

_registry.connect_bridges(
    env="metarl.bridges.task_env:TaskEnv",
    vector_env="metarl.bridges.task_env:TaskVectorEnv",
    family="metarl.bridges.gym_family:env_family",
    options="metarl.bridges.env_options:env_options",
)
_plugins.load_plugins(_clone.plugins(__path__))
