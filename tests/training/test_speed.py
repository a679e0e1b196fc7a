"""Rates of workloads and their share of the limit."""

import json

import pytest
import torch

import metarl
from metarl.errors import ConfigError
from metarl.native import library
from metarl.training import speed

BANDIT = "metarl/BernoulliBandit-v0"
QUICK = {"num_tasks": (4, 8), "rounds": 2}


@pytest.mark.parametrize(
    ("agent", "task"),
    [
        ("rl2", BANDIT),
        ("maml", "metarl/PointNavigation-v0"),
        ("pearl", "metarl/SparsePointNavigation-v0"),
    ],
)
def test_every_workload_is_measured_with_every_number_of_tasks(agent, task):
    found = metarl.benchmark(agent, task, **QUICK)
    assert [(row.work, row.num_tasks) for row in found] == [
        (work, number) for number in (4, 8) for work in ("env", "rollout", "train")
    ]
    for row in found:
        assert len(row.rates) == 2
        assert min(row.rates) > 0
        assert (row.share is None) == (row.work == "env")


def test_the_share_counts_the_products_of_the_definition(monkeypatch):
    monkeypatch.setattr(speed, "_matrix_rate", lambda device: 1e9)
    monkeypatch.setattr(speed, "_rate", lambda workload: 1000.0)
    options = {"hidden_size": 16, "memory": "none"}
    _, rollout, _ = metarl.benchmark("rl2", BANDIT, agent_options=options, num_tasks=(4,), rounds=2)
    # Embedding of the observation, a layer, and the two layers of the policy: 1, 16, 16, 5 wide.
    assert rollout.share == pytest.approx(2 * (1 * 16 + 16 * 16 + 16 * 16 + 16 * 5) * 1000 / 1e9)


def test_products_in_place_count_as_others():
    one, two, total = torch.ones(3, 4), torch.ones(4, 5), torch.ones(3, 5)
    stack = [torch.ones(2, 3, 4), torch.ones(2, 4, 5), torch.ones(2, 3, 5)]

    def work() -> int:
        total.addmm_(one, two)
        stack[2].baddbmm_(*stack[:2])
        return 1

    assert speed._flops_per_step(work) == 3 * (2 * 3 * 4 * 5)


def test_the_library_is_used_again_afterwards():
    before = library.library()
    with library.switched_off():
        assert library.library() is None
        assert not library.serves(torch.zeros(2))
    assert library.library() is before


def test_results_are_written(tmp_path):
    out = tmp_path / "lr-0.5"
    found = metarl.benchmark(
        "rl2", BANDIT, task_options={"pulls": 3}, num_tasks=(8,), rounds=2, out=out
    )
    written = json.loads((tmp_path / "lr-0.5.json").read_text())
    assert [row["rates"] for row in written["measurements"]] == [list(row.rates) for row in found]
    assert written["settings"]["task options"] == {"pulls": 3}
    page = (tmp_path / "lr-0.5.md").read_text()
    assert page.count("\n| 8 | ") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tasks": ()}, "num_tasks is empty"),
        ({"num_tasks": (4, 0)}, "num_tasks=0 must be greater than zero"),
        ({"rounds": 1}, "rounds=1 is too small"),
        ({"out": "."}, "is a folder; name a file in it"),
        ({"round": 3}, "round"),
        ({"rounds": "3"}, "must be a whole number"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        metarl.benchmark("rl2", BANDIT, **options)
