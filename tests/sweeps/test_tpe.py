"""The border to Optuna. The search itself is tested where Optuna is installed."""

import sys

import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.sweeps.space import Choice, Range
from metarl.sweeps.tpe import Trial, suggest

SPACE = {"x": Range(low=-5.0, high=5.0), "kind": Choice(((1,), (2, 2)))}


def test_without_optuna_the_search_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'metarl-suite\[sweep\]'"):
        suggest(SPACE, [], 0)


def test_a_suggestion_depends_on_the_trials_and_the_seed_alone():
    pytest.importorskip("optuna")
    trials = [Trial({"x": 1.0, "kind": (1,)}, 0.5), Trial({"x": 2.0, "kind": (2, 2)}, None, True)]
    first = suggest(SPACE, trials, 3)
    assert first == suggest(SPACE, trials, 3)
    assert first != suggest(SPACE, trials[:1], 3)
    assert first != suggest(SPACE, trials, 4)
    assert first is not None
    assert first["kind"] in ((1,), (2, 2))


def test_a_small_space_is_exhausted_without_repetitions():
    pytest.importorskip("optuna")
    space = {"n": Range(low=1, high=3, is_integer=True), "k": Choice(("a", "b"))}
    trials: list[Trial] = []
    while (found := suggest(space, trials, 0)) is not None:
        trials.append(Trial(found, None if len(trials) == 2 else float(found["n"])))
    assert len({(t.setting["n"], t.setting["k"]) for t in trials}) == len(trials) == 6


@pytest.mark.learning
def test_the_search_concentrates_where_scores_are_high():
    pytest.importorskip("optuna")

    def distances(optimum):
        """From 3, of the last settings of a search whose best score is at `optimum`."""
        trials: list[Trial] = []
        for _ in range(40):
            found = suggest(SPACE, trials, 0)
            assert found is not None
            trials.append(Trial(found, -((found["x"] - optimum) ** 2) - len(found["kind"])))
        return np.mean([abs(trial.setting["x"] - 3.0) for trial in trials[-15:]])

    assert distances(3.0) < 1.5
    assert distances(-3.0) > 4.0  # scores decide, not the sampler
