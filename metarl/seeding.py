"""One root seed in, one independent random stream per purpose out."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from metarl.errors import ConfigError


@dataclass(frozen=True)
class Seeds:
    """A root of random streams. Adding a stream shifts no other; nothing is drawn globally.

    Streams are addressed by purpose and indices (such as the iteration), so a resumed run needs
    no stored generator state: iteration 17 draws the same numbers whenever it is lived.
    """

    root: int
    """the seed a user gives, not negative"""
    path: tuple[int, ...] = ()
    """what `child` appended"""

    def __post_init__(self) -> None:
        if self.root < 0:
            raise ConfigError(f"seed={self.root} is negative; a seed is a whole number from 0 on.")

    def child(self, purpose: str, *indices: int) -> "Seeds":
        """A root of its own for `purpose`, independent of this one's streams."""
        return Seeds(self.root, (*self.path, zlib.crc32(purpose.encode()), *indices))

    def numpy(self, purpose: str, *indices: int) -> np.random.Generator:
        """The NumPy generator of this purpose, always from its start."""
        return np.random.default_rng(self._sequence(purpose, indices))

    def torch(
        self, purpose: str, *indices: int, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """The torch generator of this purpose on `device`, always from its start."""
        seed = int(self._sequence(purpose, indices).generate_state(1, np.uint64)[0])
        return torch.Generator(device).manual_seed(seed)

    def _sequence(self, purpose: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
        key = (*self.path, zlib.crc32(purpose.encode()), *indices)
        # The lengths keep (1, 23) and (12, 3) apart: SeedSequence joins its words.
        return np.random.SeedSequence(self.root, spawn_key=(len(self.path), *key))
