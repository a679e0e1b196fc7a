"""Krazy World against a plain one-lane game, tile by tile, and its boards."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl.envs.grids import krazy_rules as rules
from metarl.envs.grids.krazy_rules import (
    DEATH,
    DIRECTIONS,
    ENERGY,
    GOAL,
    ICE,
    NORMAL,
    TILES,
    TRANSPORTER,
)
from metarl.envs.grids.krazy_world import KrazyWorld
from metarl.errors import ConfigError, TaskError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import as_tasks
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded

LETTERS = {".": NORMAL, "G": GOAL, "T": TRANSPORTER, "X": DEATH, "I": ICE, "E": ENERGY}
OFFSETS = {"right": (1, 0), "left": (-1, 0), "up": (0, 1), "down": (0, -1)}


def task_of(text_map, start, colours=range(6), directions=range(4)):
    """A task [1, C + 11] from rows of letters, the highest y first, as in a drawing."""
    rows = text_map.split()[::-1]
    size = len(rows)
    board = [LETTERS[rows[y][x]] for x in range(size) for y in range(size)]
    rest = [start[0] * size + start[1], *colours, *directions]
    return torch.tensor([[*board, *rest]])


class Game:
    """One agent on one board, written from the rules; shares no code with the library."""

    def __init__(self, row, size, energy=11, replenish=8):
        cells = [(x, y) for x in range(size) for y in range(size)]
        self.tile = {cell: TILES[tile] for cell, tile in zip(cells, row, strict=False)}
        rest = row[size**2 :]
        self.place, self.colour = cells[rest[0]], dict(zip(TILES, rest[1:7], strict=True))
        self.offsets = [OFFSETS[DIRECTIONS[number]] for number in rest[7:]]
        self.size, self.energy, self.replenish = size, energy, replenish
        self.ever = dict(self.tile)

    def ahead(self, place, offset):
        there = place[0] + offset[0], place[1] + offset[1]
        return there if there in self.tile else None

    def step(self, action):
        """Reward, and whether the episode has ended."""
        self.energy -= 1
        offset = self.offsets[action]
        there = self.ahead(self.place, offset)
        if there is None:
            return 0.0, self.energy < 1
        while self.tile[there] == "ice" and self.ahead(there, offset):
            there = self.ahead(there, offset)
        if self.tile[there] == "transporter":
            (there,) = [p for p, t in self.tile.items() if t == "transporter" and p != there]
        self.place = there
        tile, reward = self.tile[there], 0.0
        if tile == "goal":
            reward, self.tile[there] = 1.0, "normal"
        if tile == "energy":
            self.energy, self.tile[there] = self.energy + self.replenish, "normal"
        return reward, tile == "death" or self.energy < 1

    def solved(self):
        return "goal" not in self.tile.values()

    def around(self):
        x, y = self.place
        seen = []
        for dx, dy in rules.NEIGHBOURS:
            one_hot = np.zeros(6)
            if (x + dx, y + dy) in self.tile:
                one_hot[self.colour[self.tile[x + dx, y + dy]]] = 1
            seen.append(one_hot)
        return np.concatenate([*seen, np.array([x, y]) / (self.size - 1)])

    def board(self):
        seen = np.zeros((len(self.tile), 7))
        for number, (place, tile) in enumerate(self.tile.items()):
            seen[number, 6 if place == self.place else self.colour[tile]] = 1
        return seen.ravel()


@pytest.mark.parametrize("view", ["local", "board"])
def test_every_lane_equals_a_plain_game(view):
    family, rng = KrazyWorld(view=view), np.random.default_rng(0)
    tasks = family.sample_tasks(60, seeded(0))
    env = TensorEnv(family, tasks, noise_of(0, 60))
    games = [Game(row, 10) for row in tasks.tolist()]
    obs, over = env.reset(), np.zeros(60, dtype=bool)
    happened = {"reward": 0, "death": 0, "energy": 0, "ice": 0, "transporter": 0}
    for lane, game in enumerate(games):
        np.testing.assert_allclose(obs[lane], getattr(game, _seen_by(view))(), atol=1e-6)
    for _ in range(family.episode_steps):
        action = rng.integers(4, size=60)
        last = env.step(torch.as_tensor(action))
        for lane in np.flatnonzero(~over):
            game, before = games[lane], games[lane].place
            tile = dict(game.tile)
            reward, over[lane] = game.step(action[lane])
            assert float(last.reward[lane]) == reward
            assert bool(last.terminated[lane]) == over[lane]
            assert bool(last.success[lane]) == game.solved()
            np.testing.assert_allclose(
                last.next_obs[lane], getattr(game, _seen_by(view))(), atol=1e-6
            )
            happened["reward"] += reward
            met = tile[game.place]
            if met in happened:
                happened[met] += game.place != before
            happened["ice"] += sum(map(abs, np.subtract(game.place, before))) == 2
    assert over.all()
    assert min(happened.values()) > 0, happened  # every rule was compared


def _seen_by(view):
    return {"local": "around", "board": "board"}[view]


def walk(text_map, start, actions, **options):
    """(cell, reward, energy, terminated) of each step on a board given as text."""
    task = task_of(text_map, start, **{k: options.pop(k) for k in ("directions",) if k in options})
    size = len(text_map.split())
    family = KrazyWorld(
        size=size, goals=1, min_goal_distance=0, death_share=0, ice_share=0, energy_share=0,
        transporters=0, **options,
    )  # fmt: skip
    noise, seen = noise_of(0, 1), []
    state = family.reset(task, noise)
    for action in actions:
        state, reward, terminated = family.step(task, state, torch.tensor([action]), noise)
        cell = divmod(int(state.cell), size)
        seen.append((cell, float(reward), int(state.energy), bool(terminated)))
    return seen


RIGHT, LEFT, UP, DOWN = range(4)


def test_a_goal_is_rewarded_once():
    seen = walk("... .G. ...", (0, 1), [RIGHT, LEFT, RIGHT])
    assert [reward for _, reward, _, _ in seen] == [1, 0, 0]
    assert not any(over for *_, over in seen)


def test_an_energy_tile_refills_once_and_the_episode_ends_without_energy():
    seen = walk("... .E. ...", (0, 1), [RIGHT, LEFT, RIGHT, LEFT, LEFT], energy=2, replenish=3)
    assert [energy for _, _, energy, _ in seen] == [4, 3, 2, 1, 0]
    assert [over for *_, over in seen] == [False] * 4 + [True]


def test_a_goal_reached_with_the_last_unit_counts():
    assert walk("... .G. ...", (0, 1), [RIGHT], energy=1) == [((1, 1), 1.0, 0, True)]


def test_a_death_tile_terminates_the_episode():
    assert walk("... .X. ...", (1, 0), [UP]) == [((1, 1), 0.0, 10, True)]


def test_a_move_against_the_border_only_costs_energy():
    seen = walk("T.. ... ..T", (1, 2), [LEFT, DOWN, RIGHT, UP])
    # Through the transporter to (2, 0). Down and right are the border, which does not send it back.
    assert [cell for cell, *_ in seen] == [(2, 0), (2, 0), (2, 0), (2, 1)]
    assert [energy for _, _, energy, _ in seen] == [10, 9, 8, 7]


def test_transporters_lead_to_each_other():
    assert [cell for cell, *_ in walk("... .T. T..", (1, 0), [LEFT])] == [(1, 1)]
    assert [cell for cell, *_ in walk("... .T. T..", (1, 0), [UP])] == [(0, 0)]


def test_ice_slides_at_no_further_cost():
    # Over two tiles of ice onto the goal, back over them, and to the goal again.
    seen = walk("..I.. ..... .IIG. ..... .....", (0, 2), [RIGHT, LEFT, RIGHT])
    assert seen == [((3, 2), 1.0, 10, False), ((0, 2), 0.0, 9, False), ((3, 2), 0.0, 8, False)]
    seen = walk("..I .I. ...", (1, 2), [RIGHT, RIGHT, DOWN])
    # Stops on the ice at the border, stays there, and leaves it in another direction.
    assert seen == [((2, 2), 0.0, 10, False), ((2, 2), 0.0, 9, False), ((2, 1), 0.0, 8, False)]


def test_ice_leads_into_death_and_into_transporters():
    assert walk("... .IX ...", (0, 1), [RIGHT]) == [((2, 1), 0.0, 10, True)]
    assert [cell for cell, *_ in walk("T.. .IT ...", (0, 1), [RIGHT])] == [(0, 2)]


def test_actions_move_in_the_directions_of_the_task():
    for directions in ([3, 2, 1, 0], [1, 3, 0, 2]):
        seen = walk("... ... ...", (1, 1), [0], directions=directions)
        offset = OFFSETS[DIRECTIONS[directions[0]]]
        assert seen[0][0] == (1 + offset[0], 1 + offset[1])


def test_taken_goals_look_normal_until_the_next_episode():
    family = KrazyWorld(size=3, goals=1, min_goal_distance=0, transporters=0)
    task = task_of("... .G. ...", (0, 1), colours=[4, 2, 0, 1, 3, 5])
    noise = noise_of(0, 1)
    state = family.reset(task, noise)
    right = rules.NEIGHBOURS.index((1, 0)) * 6
    assert family.observe(task, state)[0, right : right + 6].argmax() == 2
    for action in (RIGHT, LEFT):
        state, _, _ = family.step(task, state, torch.tensor([action]), noise)
    assert family.observe(task, state)[0, right : right + 6].argmax() == 4
    assert family.success(task, state).all()
    assert not family.success(task, family.reset(task, noise)).any()


def test_boards_hold_the_configured_numbers_of_tiles():
    family = KrazyWorld()
    board, start, colour, direction = rules.unpack_task(family.sample_tasks(2000, seeded(0)))
    count = {TILES[tile]: (board == tile).sum(1).unique().tolist() for tile in range(6)}
    assert count == {
        "normal": [75], "goal": [3], "transporter": [2], "death": [10], "ice": [5], "energy": [5],
    }  # fmt: skip
    assert (rules.tile_at(board, start) == NORMAL).all()
    lane, goal = (board == GOAL).nonzero().unbind(1)
    away = (goal // 10 - start[lane] // 10).abs() + (goal % 10 - start[lane] % 10).abs()
    assert away.min() == 3
    for order in (colour, direction):
        assert torch.equal(order.sort(1).values, torch.arange(order.shape[1]).expand_as(order))


def test_every_cell_holds_every_tile_with_the_expected_frequency():
    tasks = KrazyWorld().sample_tasks(10_000, seeded(1))
    board, start, _, _ = rules.unpack_task(tasks)
    x, y = np.divmod(np.arange(100), 10)
    far = np.abs(x[:, None] - x) + np.abs(y[:, None] - y) > 2  # symmetric
    # All cells that are far enough from the start are equally likely to hold a goal.
    expected = {GOAL: (far * (3 / far.sum(1))).sum(1) / 100}
    for tile, count in ((TRANSPORTER, 2), (DEATH, 10), (ICE, 5), (ENERGY, 5)):
        expected[tile] = np.full(100, count / 100)
    assert expected[GOAL].max() > 1.05 * expected[GOAL].min()  # the distance matters
    for tile, share in expected.items():
        error = np.sqrt(share * (1 - share) / 10_000)
        assert (np.abs((board == tile).double().mean(0).numpy() - share) < 5 * error).all()
    assert (start.bincount(minlength=100) - 100).abs().max() < 5 * 100**0.5


def test_all_orders_of_colours_and_directions_are_equally_likely():
    for length, orders in ((4, 24), (6, 720)):
        drawn = rules.sample_orders(100 * orders, length, seeded(0), vary=True)
        code = (drawn * length ** torch.arange(length)).sum(1)
        count = code.unique(return_counts=True)[1]
        assert len(count) == orders
        assert (count - 100).abs().max() < 5 * 100**0.5


def test_colours_and_directions_that_do_not_vary_are_the_identity():
    family = KrazyWorld(vary_colours=False, vary_dynamics=False)
    _, _, colour, direction = rules.unpack_task(family.sample_tasks(50, seeded(0)))
    assert torch.equal(colour, torch.arange(6).expand_as(colour))
    assert torch.equal(direction, torch.arange(4).expand_as(direction))


def test_equal_seeds_draw_equal_tasks_and_different_seeds_different_tasks():
    first, again, other = (KrazyWorld().sample_tasks(9, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert len(torch.cat((first, other)).unique(dim=0)) == 18


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), view=st.sampled_from(["local", "board"]))
def test_functions_are_pure_and_stay_within_their_spaces(seed, view):
    family, generator = KrazyWorld(view=view, size=6), seeded(seed)
    task = family.sample_tasks(5, generator)
    assert all(one in family.task_space for one in task.numpy())
    state = family.reset(task, noise_of(seed, 5))
    for _ in range(4):
        action = torch.randint(4, (5,), generator=generator)
        before = [part.clone() for part in (task, action, *state)]
        first, again = (family.step(task, state, action, noise_of(seed, 5)) for _ in range(2))
        for one, two in zip([*first[0], *first[1:]], [*again[0], *again[1:]], strict=True):
            assert torch.equal(one, two)
        obs = family.observe(task, first[0])
        assert all(one in family.observation_space for one in obs.numpy())
        obs.fill_(9.0)
        assert all(map(torch.equal, (task, action, *state), before))
        state = first[0]


@pytest.mark.parametrize(("view", "rollouts"), [("local", 1000), ("board", 100)])
def test_random_rollouts_are_finite_and_within_the_spaces(view, rollouts):
    family = metarl.make_family("metarl/KrazyWorld-v0", view=view)
    tasks = family.sample_tasks(rollouts, seeded(0))
    policy = family.references(1)["random"].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=1, seeds=Seeds(0), keep_next_obs=True)
    for obs in (trajectory.obs[trajectory.valid], trajectory.next_obs[trajectory.valid]):
        assert obs.isfinite().all()
        assert 0 <= obs.min() <= obs.max() <= 1
    returns, length = trajectory.episode_returns(1), trajectory.episode_lengths(1)
    assert set(returns.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert 0 < returns.mean() < 0.3  # rarely finds a goal
    assert 1 <= length.min() <= length.max() <= family.episode_steps
    assert not trajectory.truncated.any()  # death or lack of energy ends every episode


def test_tasks_are_integers_within_the_task_space():
    family = KrazyWorld(size=4, goals=1, min_goal_distance=0)
    task = family.sample_tasks(2, seeded(0))
    assert torch.equal(as_tasks(family, task.tolist()), task)
    for column, bad in ((0, 6), (16, 16), (17, 6), (23, 4)):
        wrong = task.clone()
        wrong[1, column] = bad
        with pytest.raises(TaskError, match=r"Task 1 of 2 is .*outside the task space"):
            as_tasks(family, wrong)


def test_the_time_limit_is_the_total_energy():
    family = KrazyWorld()
    assert (family.episode_steps, family.trial_episodes) == (11 + 5 * 8, 3)
    assert KrazyWorld(energy=50, replenish=0).episode_steps == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": 0}, "energy=0 must be greater than zero"),
        ({"goals": 0}, "goals=0 must be greater than zero"),
        ({"ice_share": 1.5}, r"ice_share=1\.5 must lie between 0\.0 and 1\.0"),
        ({"transporters": 2}, "transporters=2 must lie between 0 and 1"),
        ({"size": 1}, "size=1 must lie between 2"),
        ({"replenish": -1}, "replenish=-1 must lie between 0"),
        ({"view": "global"}, "view='global' of .* one of 'local', 'board'"),
        ({"size": 4}, "size=4 gives 16 cells; they must hold 6 tiles .* up to 12 cells"),
        ({"death_share": 0.9}, "size=10 gives 100 cells; they must hold 105 tiles"),
    ],
)
def test_invalid_options_raise_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        KrazyWorld(**options)
