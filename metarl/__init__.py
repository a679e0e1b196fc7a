"""Meta-reinforcement learning: task distributions, RL^2 and gradient agents on one engine."""

from metarl import import_path as _import_path

_import_path.drop_current_folder()  # must come before every other import

import lazy_loader as _lazy_loader  # noqa: E402

from metarl import clone as _clone  # noqa: E402
from metarl import plugins as _plugins  # noqa: E402
from metarl import registry as _registry  # noqa: E402

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
