"""The ids that tests go through, since some environments need packages that are extras."""

from importlib.util import find_spec

import gymnasium

import metarl
from metarl.registry import FAMILY_KEY

OURS = [name for name in metarl.task_ids() if name.startswith("metarl/")]
FAMILIES = [name for name in OURS if FAMILY_KEY in gymnasium.registry[name].kwargs]
"""families of tensors"""
ENVIRONMENTS = [
    name
    for name in OURS
    if name not in FAMILIES and find_spec("mujoco") and "MetaWorld" not in name
]
"""ordinary environments; Meta-World, which takes minutes to open, has tests of its own"""
