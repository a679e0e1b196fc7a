"""RL^2 that fails on one of several ranks: importing the module registers it."""

import os
import signal
from dataclasses import dataclass
from typing import Literal

import metarl
from metarl.agents.memory.rl2 import RL2Config
from metarl.errors import NonFiniteError

AGENT = "fragile_on_a_rank"
FIRST_STARTS = 1
"""each training starts the agent once to see whether its memory has room"""


@dataclass(frozen=True, kw_only=True)
class FragileConfig(RL2Config):
    """RL^2 that fails on rank 1 before it collects experience, until its rate is halved."""

    failing_start: int = 3
    """number of the start that fails, from 1 on"""
    failure: Literal["not finite", "error", "killed"] = "not finite"
    """how it fails"""

    def build(self, context):
        agent = super().build(context)
        original, starts = agent.start, [0]
        is_at_risk = context.ranks.rank == 1 and self.learning_rate == RL2Config().learning_rate

        def start(num_tasks, noise):
            starts[0] += 1
            if is_at_risk and starts[0] == self.failing_start + FIRST_STARTS:
                fail(self.failure)
            return original(num_tasks, noise)

        agent.start = start
        return agent


def fail(how: str) -> None:
    if how == "not finite":
        raise NonFiniteError("the reward is NaN")
    if how == "error":
        raise ZeroDivisionError("a mistake of the task")
    os.kill(os.getpid(), signal.SIGKILL)


metarl.register_agent(AGENT, "tests.rank_agents:FragileConfig")
