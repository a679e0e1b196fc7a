"""Takes the place of Gymnasium's `tests/envs/utils.py`: its tests then run over metarl's ids."""

import importlib.util
from pathlib import Path

import gymnasium

from metarl.errors import MissingPackageError

# Gymnasium's own file, which tests/clients/test_clients.py puts beside this one.
_spec = importlib.util.spec_from_file_location("original", Path(__file__).parent / "original.py")
_original = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_original)
assert_equals = _original.assert_equals


def made_envs():
    """An environment of each id whose packages are installed, without wrappers."""
    import metarl  # noqa: F401, registers them

    for spec in list(gymnasium.envs.registry.values()):
        if spec.namespace == "metarl":
            try:
                yield spec.make(disable_env_checker=True).unwrapped
            except MissingPackageError:
                continue


all_testing_initialised_envs = list(made_envs())
all_testing_env_specs = [env.spec for env in all_testing_initialised_envs]
