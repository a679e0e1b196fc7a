import itertools

import pytest
import torch

from metarl.errors import ConfigError
from metarl.seeding import Seeds


def first_number(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def test_a_stream_always_starts_with_the_same_numbers():
    assert first_number(Seeds(3).torch("world", 7)) == first_number(Seeds(3).torch("world", 7))
    assert Seeds(3).numpy("world").random() == Seeds(3).numpy("world").random()


def test_streams_differ_in_purpose_root_index_and_child():
    streams = [
        Seeds(3).torch("world"),
        Seeds(4).torch("world"),
        Seeds(3).torch("policy"),
        Seeds(3).torch("world", 0),
        Seeds(3).torch("world", 1, 23),
        Seeds(3).torch("world", 12, 3),
        Seeds(3).child("world").torch("world"),
        Seeds(3).child("world", 0).torch("world"),
        Seeds(3).child("a").torch("b", 1),
        Seeds(3).child("a", 1).torch("b"),
    ]
    numbers = [first_number(stream) for stream in streams]
    assert all(one != two for one, two in itertools.combinations(numbers, 2))


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed=-1 is negative"):
        Seeds(-1)
