"""What happens in a lane depends on its own task and rollout number alone, bit for bit."""

import pytest
import torch

import metarl
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import draw_tasks
from tests.known_ids import FAMILIES

EPISODES = 3
REFERENCES = [
    (task_id, name)
    for task_id in FAMILIES
    for name in metarl.make_family(task_id).references(EPISODES)
]


@pytest.mark.parametrize(("task_id", "name"), REFERENCES)
def test_a_lane_does_not_depend_on_the_other_lanes(task_id, name):
    family = metarl.make_family(task_id)
    tasks = draw_tasks(family, 6, torch.Generator().manual_seed(0), "test")
    reference = family.references(EPISODES)[name]
    together, alone = (
        collect(
            family,
            tasks[first:last],
            reference.build(tasks[first:last]),
            episodes=EPISODES,
            rollouts_per_task=rollouts,
            seeds=Seeds(1),
            first_task=first,
            keep_next_obs=True,
        )
        for first, last, rollouts in ((0, 6, 2), (2, 5, 1))
    )
    steps = len(alone.reward)
    for column, value in alone.columns.items():
        assert torch.equal(getattr(together, column)[:steps, 2:5, :1], value), column
    assert not together.valid[steps:, 2:5, :1].any()
    if name == "random":
        assert not torch.equal(together.action[:, :, 0], together.action[:, :, 1])
