"""RL^2 whose training fails for one seed, or is slow: importing the module registers it."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Literal

import metarl
from metarl.agents.memory.rl2 import RL2Config
from metarl.errors import NonFiniteError

AGENT = "fragile_rl2"


@dataclass(frozen=True, kw_only=True)
class FragileConfig(RL2Config):
    """RL^2 whose second update fails for one seed."""

    failing_seed: int = -1
    """of the run that fails"""
    failure: Literal["not finite", "error", "exit", "killed"] = "not finite"
    """how it fails"""
    pause: float = 0.0
    """seconds that every update takes in addition"""

    def build(self, context):
        agent = super().build(context)
        original, count = agent.update, [0]

        def update(batch):
            count[0] += 1
            if context.seeds.root == self.failing_seed and count[0] == 2:
                fail(self.failure)
            time.sleep(self.pause)
            return original(batch)

        agent.update = update
        return agent


def fail(how: str) -> None:
    if how == "not finite":
        raise NonFiniteError("the loss is NaN")
    if how == "error":
        raise ZeroDivisionError("a mistake of the agent")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


metarl.register_agent(AGENT, "tests.fragile_agents:FragileConfig")
