"""With what a run was made."""

from metarl.training import provenance


def test_fields_of_the_first_processor():
    text = "processor\t: 0\nmodel name\t: A: B\nflags\t: fma avx2\n\nprocessor\t: 1\n"
    expected = {"processor": "0", "model name": "A: B", "flags": "fma avx2"}
    assert provenance.cpu_fields(text) == expected


def test_every_fact_about_the_machine_is_known():
    assert all(provenance.describe_machine().values())
