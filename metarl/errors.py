"""The errors that metarl raises; each message says what was got, expected, why, and what to do."""


class MetaRLError(Exception):
    """Base class of every error that metarl raises on purpose."""


class ConfigError(MetaRLError, ValueError):
    """An option is out of range, or options contradict each other."""


class ShapeError(MetaRLError, ValueError):
    """A tensor does not have the promised axes."""


class TaskError(MetaRLError, ValueError):
    """Task parameters that the family does not have: wrong shape, or outside `task_space`."""


class TaskContractError(MetaRLError, TypeError):
    """A task family breaks a promise that it made to the engine."""


class UnknownNameError(MetaRLError, LookupError):
    """No task environment, agent or reference has this name."""


class NonFiniteError(MetaRLError, FloatingPointError):
    """A world, a loss or a gradient produced NaN or infinity."""


class RunFolderError(MetaRLError, OSError):
    """A run folder is missing, incomplete, or would be overwritten."""


class CheckpointError(MetaRLError, ValueError):
    """A checkpoint is truncated, foreign, or belongs to another agent or family."""
