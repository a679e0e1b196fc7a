"""What a process of a sweep does with one run: it trains, then evaluates in the tasks for choosing.

These tasks are not those of the final evaluation, so that its numbers stay those of an agent whose
settings were chosen without them.
"""

from dataclasses import dataclass, replace

from metarl.errors import ConfigError
from metarl.evaluation.agents import evaluate
from metarl.evaluation.options import EvaluationOptions
from metarl.results.sweeps import SELECTION
from metarl.training.job import TrainingJob
from metarl.training.loop import run_job
from metarl.training.progress import ProgressDisplay

FINAL_SEED = EvaluationOptions().seed
"""of the tasks of `metarl evaluate`, unless another one is given"""


@dataclass(frozen=True)
class TrainAndEvaluate:
    """The work of a process; it can be pickled."""

    evaluation: EvaluationOptions

    def __call__(self, job: TrainingJob, display: ProgressDisplay) -> None:
        """Trains to the last iteration, and evaluates into the folder `selection` of the run."""
        run = run_job(job, display)
        evaluate(run, options=replace(self.evaluation, out=run.path / SELECTION))


def require_other_tasks(evaluation: EvaluationOptions) -> None:
    """Raises `ConfigError` if settings would be chosen in the tasks of the final evaluation."""
    if evaluation.seed == FINAL_SEED:
        raise ConfigError(
            f"[evaluate] has seed = {FINAL_SEED}, which gives the tasks of the final `metarl "
            "evaluate`. Settings that are chosen in these tasks look better there than they are. "
            "Give another seed."
        )
