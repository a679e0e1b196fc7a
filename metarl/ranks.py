"""The processes that train one agent together, each in its share of the tasks.

They are the ranks of data-parallel training. Each collects experience in its own tasks and holds a
copy of the agent; sums over ranks make of their gradients that of the whole meta-batch, so that the
copies stay equal. A learner asks for these sums alone and does not know how they are made.

Sums over several ranks differ from those of one process by rounding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar, final

import torch
from torch import Tensor

from metarl.errors import MetaRLError, NonFiniteError, RankError

Value = TypeVar("Value")


class Moments(NamedTuple):
    """Of rows [M, ...] over all ranks."""

    mean: Tensor  # [...]
    variance: Tensor  # [...] divided by M
    rows: int  # M, of all ranks


class Report(NamedTuple):
    """What the other ranks are told of an error."""

    is_not_finite: bool
    text: str

    def as_error(self, rank: int) -> NonFiniteError | RankError:
        """The error that they raise."""
        text = f"Rank {rank} has failed, so this one ends, too: {self.text}"
        if self.is_not_finite:
            return NonFiniteError(text)
        error = RankError(text)
        error.is_reported = True
        return error


def report_of(error: Exception) -> Report:
    """What to tell of this error."""
    text = str(error) if isinstance(error, MetaRLError) else f"{type(error).__name__}: {error}"
    return Report(isinstance(error, NonFiniteError), text)


class Ranks(ABC):
    """The processes of one training; every method is called by all of them, in the same order.

    What a method returns is the same on all ranks.
    """

    rank: int
    """number of this process, from 0 on; rank 0 alone writes files"""
    size: int
    """R, the number of processes"""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks of tensors of equal shapes, without a gradient."""

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """What each rank gives, in the order of ranks; small values, which are pickled."""

    @abstractmethod
    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns on rank 0, which alone calls it; what it raises, all ranks raise."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within it nothing is summed; if it raises on one rank, all raise at its end.

        Without this, the others would wait for a sum that never comes.

        Raises:
            NonFiniteError: elsewhere, if that is the error of the first rank that has one.
            RankError: elsewhere, for another error.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # raised below, when the others know of it
            error = caught
        own = None if error is None else report_of(error)
        reports = self.gather(own)
        if error is not None and (self.is_first or own != reports[0]):
            raise error
        for rank, report in enumerate(reports):
            if report is not None:
                raise report.as_error(rank)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over ranks, such as of means over equally many tasks."""
        return self.sum(value) / self.size

    def mean_number(self, value: float) -> float:
        """The mean over ranks of a number."""
        return float(self.mean(torch.tensor(value, dtype=torch.float64)))

    def ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """The sum over ranks of `part` [...], divided by that of the number `whole`."""
        sums = self.sum(torch.cat((part.flatten(), whole.reshape(1).to(part))))
        return sums[:-1].view_as(part) / sums[-1]

    def mean_over(self, rows: Tensor) -> Tensor:
        """The mean of the rows [M, ...] of all ranks; M may differ."""
        return self.ratio(rows.sum(0), torch.tensor(len(rows)))

    def moments(self, rows: Tensor) -> Moments:
        """Mean, variance and number of the rows [M, ...] of all ranks; M may differ."""
        count = sum(self.gather(len(rows)))
        mean = self.sum(rows.sum(0)) / count
        return Moments(mean, self.sum((rows - mean).square().sum(0)) / count, count)

    def first_of(self, own: int) -> int:
        """Number of the first of this rank's lanes or tasks among all; every rank has `own`."""
        return self.rank * own

    def joined(self, own: Tensor) -> Tensor:
        """The rows [M, ...] of all ranks, [R M, ...], where each has as many."""
        everything = own.new_zeros((self.size, *own.shape))
        everything[self.rank] = own
        return self.sum(everything).flatten(0, 1)


@final
class OneRank(Ranks):
    """One process alone: every sum is what it gives."""

    rank, size = 0, 1

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """Of what is given."""
        return part / whole

    def gather(self, value: Value) -> list[Value]:
        """The value alone."""
        return [value]

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What it makes."""
        return make()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Changes nothing."""
        yield

    def mean_number(self, value: float) -> float:
        """The number itself."""
        return value

    def mean_over(self, rows: Tensor) -> Tensor:
        """The mean of these rows."""
        return rows.mean(0)

    def moments(self, rows: Tensor) -> Moments:
        """In one pass."""
        variance, mean = torch.var_mean(rows, 0, correction=0)
        return Moments(mean, variance, len(rows))


ALONE: Ranks = OneRank()
"""the ranks of a training in one process"""
