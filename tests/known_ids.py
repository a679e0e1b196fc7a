"""Registered ids for parametrised tests; environments that need missing extras are left out."""

from importlib.util import find_spec

import gymnasium

import metarl
from metarl.registry import FAMILY_KEY

METARL_IDS = [name for name in metarl.task_ids() if name.startswith("metarl/")]
FAMILIES = [name for name in METARL_IDS if FAMILY_KEY in gymnasium.registry[name].kwargs]
"""families written as tensor operations"""
ENVIRONMENTS = [
    name
    for name in METARL_IDS
    if name not in FAMILIES and find_spec("mujoco") and "MetaWorld" not in name
]
"""ordinary environments; Meta-World, which takes minutes to start, has separate tests"""
