import pytest

from metarl.native import library
from tests.native.builds import BUILDS


def pytest_collection_modifyitems(items):
    for item in items:
        if "native" in item.path.parts and not BUILDS:
            item.add_marker(pytest.mark.skip(reason="the library was not compiled"))


@pytest.fixture(params=BUILDS or [None])
def build(request, monkeypatch):
    """Each build that this processor can run takes the place of the fastest."""
    monkeypatch.setattr("metarl.native.library.library", lambda: library.load(request.param))
    monkeypatch.setattr("metarl.native.adam.library", lambda: library.load(request.param))
    monkeypatch.setattr("metarl.native.noise.library", lambda: library.load(request.param))
