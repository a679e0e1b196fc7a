"""The two splits of the tasks of a family."""

from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "test"]
"""learners see `train` tasks only; adaptation is measured on `test` tasks"""
