"""The builds of the compiled library that this processor can run."""

from metarl.native import library

_baseline = library.load("_baseline")
BUILDS = [
    build
    for rank, build in enumerate(library.BUILDS)
    if _baseline is not None and rank <= _baseline.best_build() and library.load(build) is not None
]
