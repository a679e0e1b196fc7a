"""Independent random streams, one per purpose, from one root seed."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from metarl.errors import ConfigError


@dataclass(frozen=True)
class Seeds:
    """A root of random streams. Adding a stream changes no other; there is no global state.

    Streams are addressed by purpose and indices (such as the iteration), so a resumed run needs
    no stored generator state: iteration 17 always draws the same numbers.
    """

    root: int
    """the user's seed, not negative"""
    path: tuple[int, ...] = ()
    """purposes and indices appended by `child`"""

    def __post_init__(self) -> None:
        if isinstance(self.root, bool) or not isinstance(self.root, int | np.integer):
            raise ConfigError(
                "A seed must be a whole number from 0 on; got a value of type "
                f"{type(self.root).__name__}."
            )
        if self.root < 0:
            raise ConfigError(f"seed={self.root} is negative; a seed is a whole number from 0 on.")

    def child(self, purpose: str, *indices: int) -> "Seeds":
        """A root for `purpose`, whose streams are independent of this root's."""
        return Seeds(self.root, (*self.path, zlib.crc32(purpose.encode()), *indices))

    def numpy(self, purpose: str, *indices: int) -> np.random.Generator:
        """The NumPy generator of this purpose, always from its start."""
        return np.random.default_rng(self._sequence(purpose, indices))

    def torch(
        self, purpose: str, *indices: int, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """The torch generator of this purpose on `device`, always from its start."""
        return torch.Generator(device).manual_seed(self.word(purpose, *indices))

    def word(self, purpose: str, *indices: int) -> int:
        """64 random bits of this purpose."""
        return int(self._sequence(purpose, indices).generate_state(1, np.uint64)[0])

    def _sequence(self, purpose: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
        key = (*self.path, zlib.crc32(purpose.encode()), *indices)
        # The path's length keeps addresses apart whose numbers concatenate to equal sequences.
        return np.random.SeedSequence(self.root, spawn_key=(len(self.path), *key))
