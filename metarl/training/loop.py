"""The meta-training loop: trains an agent on a task family and writes a run folder."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agent import Agent, AgentConfig, MetaBatch
from metarl.errors import MetaRLError, NonFiniteError, RunFolderError
from metarl.rollout import RolloutSpec, RolloutStorage, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.training import process
from metarl.training.callbacks import Callback, Outcome, TrainingView, stops
from metarl.training.interruption import StopRequest, stop_between_iterations
from metarl.training.job import TrainingJob, training_job
from metarl.training.launcher import is_first_rank
from metarl.training.options import RunOptions
from metarl.training.process_ranks import joined_ranks
from metarl.training.progress import ProgressDisplay, TrainingProgress
from metarl.training.record import TrainingRecord
from metarl.training.rollback import Rollback, with_halved_rate
from metarl.training.run_folder import Progress, Run
from metarl.training.torch_defaults import torch_defaults
from metarl.training.warm_start import origin_of
from metarl.trajectory import Trajectory


@torch_defaults()
def train(
    agent: str,
    task: str | TaskDistribution,
    *,
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Run:
    """Meta-trains an agent on the `train` split of a family.

    Args:
        agent: its registered name, such as "rl2".
        task: a family, or the id of one.
        task_options: options of the family when `task` is an id.
        preset: name of tuned hyper-parameters for this agent and family; its task options apply
            where `task` is an id and `task_options` does not override them.
        config: the agent's hyper-parameters; by default made from `preset` and `options`.
        run: where and how; by default made from `options`.
        callbacks: called at the start, after each iteration and at the end; see `Callback`.
        options: fields of the agent's config and of `RunOptions`, such as `num_tasks=512, seed=3`.

    Returns:
        The run, whose folder holds settings, metrics and the final checkpoint.

    Raises:
        UnknownNameError: unknown agent, task or option.
        ConfigError: an option is out of range.
        RunFolderError: the run folder exists, is resumed with other settings, or another process
            is training in it.
        NonFiniteError: the environment or the learner produced NaN; the last checkpoint stays.
        KeyboardInterrupt: Ctrl-C, after the current iteration was finished and saved.
        StoppedBySignal: SIGTERM or SIGHUP, likewise; a `SystemExit` with code 143 or 129.
    """
    job = training_job(
        agent,
        task,
        task_options=task_options,
        preset=preset,
        config=config,
        run=run,
        callbacks=callbacks,
        **options,
    )
    title, iterations = job.path.name, job.config.iterations
    is_shown = job.options.progress and is_first_rank()
    return run_job(job, TrainingProgress([title], iterations, enabled=is_shown))


def run_job(job: TrainingJob, display: ProgressDisplay) -> Run:
    """Trains, and shows every iteration on `display`.

    A display that raises an error ends the training after the iteration, which is saved.
    """
    process.keep_freed_memory()
    options = job.options
    with process.torch_threads(options.threads), torch_defaults():
        ranks = joined_ranks(options.device)
        with ranks.together():
            job = job.on(ranks)
            family = job.make_family()
            if options.on_nan == "rollback":
                with_halved_rate(job.config, 0)  # an agent without one is refused here
        # Built before the folder is made: an option that does not fit leaves no empty folder.
        is_started = ranks.from_first(lambda: job.open_folder().is_started)
        is_new = not is_started and ranks.is_first
        with ranks.together():
            learner = (job.first_agent if is_new else job.new_agent)(family)
        with ExitStack() as folder_in_use:
            start = ranks.from_first(partial(_begin, job, learner, folder_in_use))
            if start.progress.rollbacks:
                learner = job.new_agent(family, start.progress.rollbacks)
            if start.state is not None:
                learner.load_state(start.state)
            _Training(family, job, learner, start.folder, display).run(start.progress)
    return start.folder


class _Start(NamedTuple):
    """What a training starts from."""

    folder: Run
    progress: Progress
    state: Mapping[str, Tensor] | None  # of the learner, where it has to be loaded


def _begin(job: TrainingJob, learner: Agent, folder_in_use: ExitStack) -> _Start:
    """Opens the folder for writing, and loads its checkpoint into the learner."""
    folder_in_use.enter_context(job.open_folder().locked())
    folder = job.open_folder()  # until now it could change
    if folder.is_started:
        progress = folder.load_newest_sound(learner)
        folder.prolong()
        folder.warn_of_other_ranks(job.ranks.size)
    else:
        folder.start(origin_of(job.options.init_from), ranks=job.ranks.size)
        progress = Progress()
    is_sent = job.ranks.size > 1 or progress.rollbacks > 0
    return _Start(folder, progress, on_cpu(learner.state()) if is_sent else None)


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state as it is sent to other ranks, whose devices are others."""
    return {name: value.cpu() for name, value in state.items()}


class _Training:
    """The loop over meta-iterations, with its record."""

    def __init__(
        self,
        family: TaskDistribution,
        job: TrainingJob,
        agent: Agent,
        run: Run,
        display: ProgressDisplay,
    ) -> None:
        self._family = family
        self._job, self._ranks = job, job.ranks
        self._config, self._options = job.config, job.options
        self._callbacks = job.callbacks if job.ranks.is_first else ()
        self._agent = agent
        self._run = run
        self._rollback = None
        if self._options.on_nan != "stop":
            self._rollback = Rollback(run, self._options, partial(job.first_agent, family))
        self._display = display
        self._progress = Progress()
        self._seeds = Seeds(job.options.seed).child("training")
        self._storage = RolloutStorage()
        self._outcome: Outcome = "stopped"
        self._is_ahead = False  # True while the agent may have learned what is not recorded

    def run(self, progress: Progress) -> None:
        """Trains from `progress` to the last iteration.

        Whatever fails in an environment or a learner, all completed iterations are kept. An update
        interrupted half-way (second Ctrl-C) falls back to the last checkpoint.
        """
        self._progress = progress
        with self._display, stop_between_iterations() as stop:
            while True:
                try:
                    self._train(stop)
                    break
                except NonFiniteError as error:
                    if self._rollback is None:
                        raise
                    self._go_back(error, self._rollback)
        stop.raise_if_set()

    def _go_back(self, error: NonFiniteError, rollback: Rollback) -> None:
        """To the state that rank 0 has kept."""

        def go_back() -> tuple[Progress, Mapping[str, Tensor] | None]:
            self._agent, progress = rollback.go_back(error, self._progress)
            return progress, on_cpu(self._agent.state()) if self._ranks.size > 1 else None

        self._progress, state = self._ranks.from_first(go_back)
        if state is not None and not self._ranks.is_first:
            self._agent = self._job.new_agent(self._family, self._progress.rollbacks)
            self._agent.load_state(state)

    def _must_stop(self, stop: StopRequest, is_stopped: bool) -> bool:
        """Whether a signal or a callback ends the training; the same on all ranks."""
        numbers, stopped = zip(*self._ranks.gather((stop.number, is_stopped)), strict=True)
        for number in numbers:
            if number is not None and not stop:
                stop.set(number)
        return bool(stop) or any(stopped)

    def _train(self, stop: StopRequest) -> None:
        saved, saved_at = self._progress, time.monotonic()
        iterations = self._config.iterations
        self._display.show_iteration(saved.iteration)
        with ExitStack() as opened:
            with self._ranks.together():
                record = opened.enter_context(self._recorded(saved))
                opened.enter_context(self._callbacks_open())
            is_stopped = False
            try:
                while self._progress.iteration < iterations and not self._must_stop(
                    stop, is_stopped
                ):
                    after, row = self._iteration(self._progress)
                    with self._ranks.together():  # rank 0 alone writes and calls back
                        if record is not None:
                            record.write(row)
                        self._progress, self._is_ahead = after, False
                        self._display.show(row)
                        is_stopped = self._call_back(row)
                        if self._rollback is not None and self._ranks.is_first:
                            self._rollback.keep(self._agent, after)
                        elapsed = time.monotonic() - saved_at
                        if after.iteration == 1 or elapsed >= self._options.checkpoint_seconds:
                            self._save(record)
                            saved, saved_at = after, time.monotonic()
            except BaseException as error:
                if self._progress != saved and not self._is_ahead:
                    self._save_after(error, record)
                raise
            with self._ranks.together():
                if self._progress != saved:
                    self._save(record)

    def _recorded(self, saved: Progress) -> AbstractContextManager[TrainingRecord | None]:
        """The record that goes on from `saved`; only rank 0 has one."""
        if not self._ranks.is_first:
            return nullcontext()
        settings = asdict(self._job.description)
        return TrainingRecord(
            self._run.path, keep=saved.iteration, env_steps=saved.env_steps, settings=settings
        )

    @contextmanager
    def _callbacks_open(self) -> Iterator[None]:
        """Within it all callbacks are started; at the end those that were are ended."""
        self._outcome = "stopped"
        with ExitStack() as stack:
            for each in self._callbacks:
                each.on_start(self._view())
                stack.callback(self._end_callback, each)
            try:
                yield
            except Exception:  # no interruption
                self._outcome = "failed"
                raise
            if self._progress.iteration >= self._config.iterations:
                self._outcome = "complete"

    def _end_callback(self, callback: Callback) -> None:
        callback.on_end(self._view())

    def _call_back(self, row: Mapping[str, float]) -> bool:
        """Whether a callback stops the training after this iteration; all are called."""
        if not self._callbacks:
            return False
        view = self._view()
        answers = [each.on_iteration(view, row) for each in self._callbacks]
        return stops(self._callbacks, answers, "on_iteration")

    def _view(self) -> TrainingView:
        return TrainingView(
            run=self._run,
            agent=self._agent,
            family=self._family,
            config=self._config,
            options=self._options,
            progress=self._progress,
            callbacks=self._callbacks,
            outcome=self._outcome,
        )

    def _save(self, record: TrainingRecord | None) -> None:
        """Writes a checkpoint; ranks that write nothing have no record."""
        if record is None:
            return
        record.sync()  # the rows of a checkpoint are on the disk before it is
        self._run.save(self._agent, self._progress, keep=self._options.checkpoints)

    def _save_after(self, error: BaseException, record: TrainingRecord | None) -> None:
        """Saves what was completed before an error, which stays the one that is reported."""
        try:
            self._save(record)
        except RunFolderError as second:
            if not isinstance(error, RunFolderError):
                error.add_note(f"metarl: the last iterations could not be saved: {second}")

    def _iteration(self, progress: Progress) -> tuple[Progress, dict[str, float]]:
        started = time.perf_counter()
        with self._ranks.together():
            batch = self._collect_phases(progress.iteration)
        collected = time.perf_counter()
        phases = batch.trajectories
        steps, *returns = self._over_ranks(phases)
        self._is_ahead = True
        try:
            learned = self._agent.update(batch)
        except MetaRLError:  # by contract the agent is unchanged
            self._is_ahead = False
            raise
        ended = time.perf_counter()

        after = replace(
            progress,
            iteration=progress.iteration + 1,
            env_steps=progress.env_steps + int(steps),
            seconds=progress.seconds + ended - started,
        )
        row = {
            "iteration": after.iteration,
            "env_steps": after.env_steps,
            "seconds": after.seconds,
            "first_episode_return": returns[0],
            "last_episode_return": returns[1],
            "trial_return": returns[2],
            "steps_per_second": steps / (ended - started),
            "rollout_steps_per_second": steps / (collected - started),
        }
        if self._rollback is not None:
            row["rollbacks"] = after.rollbacks
        return after, row | dict(learned)

    def _over_ranks(self, phases: Sequence[Trajectory]) -> list[float]:
        """Steps of all ranks; mean return of the first and the last episode, and of the trial."""
        steps = sum(phase.steps for phase in phases)
        returns = [phase.episode_returns(self.episodes).mean((1, 2)) for phase in phases]
        own = [float(returns[0][0]), float(returns[-1][-1]), float(returns[-1].sum())]
        sums = self._ranks.sum(torch.tensor([steps, *own], dtype=torch.float64)).tolist()
        return [sums[0], *(total / self._ranks.size for total in sums[1:])]

    def _collect_phases(self, iteration: int) -> MetaBatch:
        """Experience in this rank's share of the tasks."""
        seeds = self._seeds.child("iteration", iteration)
        drawn = draw_tasks(self._family, self._config.num_tasks, seeds.torch("tasks"), "train")
        share = drawn.chunk(self._ranks.size)[self._ranks.rank]
        spec = RolloutSpec(
            episodes=self.episodes,
            rollouts_per_task=self._config.rollouts_per_task,
            workers=self._options.workers,
            worker_timeout=self._options.worker_timeout,
            keep_next_obs=self._config.reads_next_obs,
        )
        return rollout_phases(
            self._agent,
            self._family,
            share.to(self._options.device),
            adaptation_steps=self._agent.adaptation_steps,
            spec=spec,
            seeds=seeds,
            first_task=self._ranks.first_of(len(share)),
            storage=self._storage,
            training=True,
        )

    @property
    def episodes(self) -> int:
        """E, episodes of one phase."""
        return self._config.episodes or self._family.trial_episodes
