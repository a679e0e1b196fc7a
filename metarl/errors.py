"""The errors that metarl raises; each message states the problem, its reason and the remedy."""

from collections.abc import Sequence
from pathlib import Path

from gymnasium.error import DependencyNotInstalled


class MetaRLError(Exception):
    """Base class of all errors of metarl."""


class ConfigError(MetaRLError, ValueError):
    """An option is out of range, or options contradict each other."""


class UnknownOptionError(ConfigError, TypeError):
    """There is no option of this name."""


class MissingPackageError(ConfigError, DependencyNotInstalled, ImportError):
    """A package is not installed that a task or a function needs."""


class ShapeError(MetaRLError, ValueError):
    """A tensor does not have the expected axes."""


class TaskError(MetaRLError, ValueError):
    """Task parameters have the wrong shape or lie outside `task_space`."""


class TaskContractError(MetaRLError, TypeError):
    """A task family violates its contract with the engine."""


class UnknownNameError(MetaRLError, LookupError):
    """No task environment, agent or reference has this name."""


class NonFiniteError(MetaRLError, FloatingPointError):
    """An env, a loss or a gradient is NaN or infinite."""


class SeedsError(MetaRLError):
    """The training of some of several seeds has failed; the message names them."""

    def __init__(self, message: str, *, trained: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.trained = trained
        """folders of the runs that were trained to the end"""


class PolicyUseError(MetaRLError, RuntimeError):
    """Methods of a trained policy are called in an order that has no meaning."""


class WorkerError(MetaRLError, RuntimeError):
    """A process that steps environments has died, does not answer, or has raised an exception."""


class RankError(MetaRLError, RuntimeError):
    """One of the processes that train an agent together has failed or ended."""

    is_reported = False
    """whether the process that has failed says so itself"""


class ClusterError(MetaRLError, RuntimeError):
    """A cluster that carries out runs is lost."""


class RunFolderError(MetaRLError, OSError):
    """A run folder is missing, incomplete, or would be overwritten."""


class HubError(MetaRLError, OSError):
    """A run cannot be sent to the Hugging Face Hub, or fetched from it."""


class CheckpointError(MetaRLError, ValueError):
    """A checkpoint is truncated, or of another program, agent or family."""
