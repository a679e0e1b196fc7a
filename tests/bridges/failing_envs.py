"""Environments that end badly, each in its own way; workers import them from here."""

import os
import signal
import sys
import time

import gymnasium
import numpy as np


class UnsendableError(Exception):
    """Cannot be made again from its text, nor pickled."""

    def __init__(self, code, where):
        super().__init__(f"{where} broke with {code}")
        self.lock = sys.stdout.buffer


class Failing(gymnasium.Env):
    """Action 1 makes it fail; the `way` is one of the names below."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = task_space = gymnasium.spaces.Discrete(2)

    def __init__(self, way="none", closed_file=""):
        self.way, self.closed_file = way, closed_file

    def reset(self, *, seed=None, options=None):
        if self.way == "hang in reset":
            time.sleep(1000)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action:
            self.fail()
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def fail(self):
        if self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.way == "os._exit":
            os._exit(7)
        elif self.way == "sys.exit":
            sys.exit(3)
        elif self.way == "unsendable":
            raise UnsendableError(7, "the gripper")
        elif self.way == "connection":
            raise ConnectionResetError("the simulator has gone")
        elif self.way == "hang":
            time.sleep(1000)

    def close(self):
        if self.closed_file:
            with open(self.closed_file, "a") as file:
                file.write("closed\n")
        if self.way == "close":
            raise AttributeError("viewer")
