"""Few-shot classification: episodes against a plain loop, no label leaks, expected returns."""

from collections import Counter

import numpy as np
import pytest
import torch

from metarl.envs.few_shot import images
from metarl.envs.few_shot.classification import FewShotClassification
from metarl.envs.few_shot.classification_references import parse_observation
from metarl.envs.few_shot.images import image_set, register_images
from metarl.errors import ConfigError, TaskError
from metarl.noise import LaneNoise
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import as_tasks, draw_tasks
from metarl.tasks.tensor_env import TensorEnv

TINY = "tiny images of the tests"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise_of(lanes):
    return LaneNoise.of(Seeds(0), "noise", lanes)


def first_state(family, tasks):
    """The state after the first reset of a `TensorEnv` with `noise_of`."""
    return family.reset(tasks, noise_of(len(tasks)).child(0))


@pytest.fixture(autouse=True)
def tiny_images(monkeypatch):
    """Twelve classes of 3 to 5 images of 4 pixels, all different; the last three are held out."""
    monkeypatch.setattr(images, "_registered", {})
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), [3, 4, 5] * 4)
    register_images(TINY, rng.uniform(size=(len(labels), 2, 2)), labels)


def roll_out(name, num_tasks, *, seed=0, episodes=1, **options):
    family = FewShotClassification(**options)
    tasks = draw_tasks(family, num_tasks, Seeds(seed).torch("tasks"), "test")
    policy = family.references(episodes)[name].build(tasks)
    return collect(family, tasks, policy, episodes=episodes, seeds=Seeds(seed), keep_next_obs=True)


def mean_is(values, expected):
    """Whether the mean over independent lanes equals `expected` within its standard error."""
    values = values.double()
    error = 4 * float(values.std()) / len(values) ** 0.5
    return abs(float(values.mean()) - expected) < max(error, 1e-12)


class PlainEpisode:
    """One lane, one step at a time, from the images and labels of the state."""

    def __init__(self, family, images, labels):
        self.family, self.images, self.labels, self.t = family, images, labels, 0

    def observation(self):
        support, steps = self.family.ways * self.family.shots, len(self.labels)
        one_hot = [0.0] * self.family.ways
        if 1 <= self.t <= support:
            one_hot[self.labels[self.t - 1]] = 1.0
        image = self.images[self.t] if self.t < steps else np.zeros_like(self.images[0])
        return [*image.tolist(), *one_hot, float(self.t >= support)]

    def step(self, guess):
        support = self.family.ways * self.family.shots
        correct, query = guess == self.labels[self.t], self.t >= support
        reward = float(correct and (query or self.family.rewarded == "all"))
        success = correct and self.t == support
        self.t += 1
        return reward, self.t == len(self.labels), success


@pytest.mark.parametrize("rewarded", ["all", "queries"])
@pytest.mark.parametrize(("ways", "shots", "queries"), [(3, 1, 1), (3, 2, 4), (2, 2, 3)])
def test_every_lane_equals_a_plain_loop_over_images(ways, shots, queries, rewarded):
    family = FewShotClassification(
        images=TINY, ways=ways, shots=shots, queries=queries, rewarded=rewarded
    )
    data, rng = image_set(TINY), np.random.default_rng(0)
    tasks = family.sample_tasks(8, seeded(0))
    env, state = TensorEnv(family, tasks, noise_of(8)), first_state(family, tasks)
    obs = env.reset()
    plain = [
        PlainEpisode(family, data.pixels[state.image[lane]].numpy(), state.label[lane].tolist())
        for lane in range(8)
    ]
    for _ in range(ways * shots + queries):
        guess = rng.integers(ways, size=8)
        for lane in range(8):
            assert obs[lane].tolist() == plain[lane].observation()
        last = env.step(torch.as_tensor(guess))
        for lane in range(8):
            step = float(last.reward[lane]), bool(last.terminated[lane]), bool(last.success[lane])
            assert step == plain[lane].step(guess[lane])
        obs = last.next_obs
    for lane in range(8):
        assert obs[lane].tolist() == plain[lane].observation()
        assert not obs[lane, :4].any()
    assert last.terminated.all()


@pytest.mark.parametrize(("shots", "queries"), [(1, 7), (2, 3)])
def test_an_episode_has_its_support_then_other_images_as_queries(shots, queries):
    family = FewShotClassification(images=TINY, ways=3, shots=shots, queries=queries)
    data, tasks = image_set(TINY), family.sample_tasks(300, seeded(0))
    state = family.reset(tasks, noise_of(300))
    assert (data.class_of[state.image] == tasks.gather(1, state.label)).all()
    for lane in range(300):
        images, labels = state.image[lane].tolist(), state.label[lane].tolist()
        support = images[: 3 * shots]
        assert len(set(support)) == 3 * shots
        assert Counter(labels[: 3 * shots]) == dict.fromkeys(range(3), shots)
        assert not set(support) & set(images[3 * shots :])
        for label in range(3):
            query_images = [
                image
                for image, other in zip(images, labels, strict=True)
                if other == label and image not in support
            ]
            unused = int(data.count[tasks[lane, label]]) - shots
            before_reuse = query_images[:unused]
            assert len(set(before_reuse)) == len(before_reuse)


def test_support_order_queries_and_images_are_uniform():
    family = FewShotClassification(images=TINY, ways=3, shots=1, queries=2)
    task = torch.tensor([[0, 1, 2]]).expand(12_000, 3)
    state = family.reset(task, noise_of(12_000))
    orders = Counter(map(tuple, state.label[:, :3].tolist()))
    assert len(orders) == 6
    assert all(abs(count - 2000) < 200 for count in orders.values())
    queries = Counter(map(tuple, state.label[:, 3:].tolist()))
    assert len(queries) == 9
    assert all(abs(count - 12_000 / 9) < 170 for count in queries.values())
    # Class 2 has five images, equally likely in the support and in the first query.
    for column in (0, 3):
        images = Counter(state.image[state.label[:, column] == 2, column].tolist())
        assert set(images) == set(range(7, 12))
        assert max(images.values()) < 1.2 * min(images.values())


def test_the_label_shown_is_independent_of_the_image_it_is_shown_with():
    family = FewShotClassification(images=TINY, ways=3, shots=2, queries=2)
    tasks = family.sample_tasks(20_000, seeded(0))
    env, state = TensorEnv(family, tasks, noise_of(20_000)), first_state(family, tasks)
    obs = env.reset()
    for t in range(8):
        shown, label = parse_observation(obs, 3).label, state.label[:, t]
        if t in (0, 7):
            assert not shown.any()
        elif t < 7:
            previous = shown.argmax(1)
            assert (previous == state.label[:, t - 1]).all()
            # Queries are independent of it. In the support this label has one image less left, so
            # the share of repeats is 1/5, not 1/3 as for independent labels.
            chance = 1 / 3 if t >= 6 else 1 / 5
            assert mean_is((previous == label).float(), chance)
        obs = env.step(torch.zeros(20_000, dtype=torch.int64)).next_obs


def test_observations_do_not_depend_on_the_guesses():
    family = FewShotClassification(images=TINY, ways=3)
    tasks = family.sample_tasks(50, seeded(0))
    observations = []
    for guess in (0, 2):
        env = TensorEnv(family, tasks, noise_of(50))
        observations.append([env.reset()])
        observations[-1] += [env.step(torch.full((50,), guess)).next_obs for _ in range(8)]
    assert all(torch.equal(one, other) for one, other in zip(*observations, strict=True))


@pytest.mark.parametrize("images", [TINY, "glyphs"])
def test_train_and_test_classes_are_disjoint(images):
    family, data = FewShotClassification(images=images, ways=3), image_set(images)
    drawn = {
        split: set(family.sample_tasks(12_000, seeded(0), split).flatten().tolist())
        for split in ("train", "test")
    }
    assert not drawn["train"] & drawn["test"]
    assert drawn["train"] | drawn["test"] == set(range(len(data.count)))


def test_classes_and_their_order_are_uniform_without_repeats():
    family = FewShotClassification(images=TINY, ways=3)
    tasks = family.sample_tasks(12_000, seeded(0), "test")
    orders = Counter(map(tuple, tasks.tolist()))
    assert set(orders) == {
        (a, b, c)
        for a in (9, 10, 11)
        for b in (9, 10, 11)
        for c in (9, 10, 11)
        if len({a, b, c}) == 3
    }
    assert all(abs(count - 2000) < 200 for count in orders.values())
    train = family.sample_tasks(9000, seeded(0))
    assert all(abs(int((train == c).sum()) - 3000) < 220 for c in range(9))


def test_another_episode_of_a_task_shows_other_images_of_the_same_classes():
    family, data = FewShotClassification(images="glyphs"), image_set("glyphs")
    tasks, noise = family.sample_tasks(20, seeded(0)), noise_of(20)
    first, second = (family.reset(tasks, noise) for _ in range(2))
    assert (first.image != second.image).float().mean() > 0.9
    for state in (first, second):
        assert (data.class_of[state.image] == tasks.gather(1, state.label)).all()


def test_invalid_tasks_are_refused():
    family = FewShotClassification(images=TINY, ways=3)
    assert as_tasks(family, [[0, 11, 3]]).tolist() == [[0, 11, 3]]
    with pytest.raises(TaskError, match=r"Task 1 of 2 is \[0, 12, 3\], outside"):
        as_tasks(family, [[0, 1, 2], [0, 12, 3]])
    with pytest.raises(TaskError, match="whole numbers"):
        as_tasks(family, [[0.0, 1.5, 2.0]])
    with pytest.raises(TaskError, match="must have shape"):
        as_tasks(family, [[0, 1]])


@pytest.mark.parametrize(("ways", "shots", "queries"), [(5, 1, 5), (3, 4, 2)])
def test_references_earn_their_expected_returns(ways, shots, queries):
    options = {"ways": ways, "shots": shots, "queries": queries}
    steps = ways * shots + queries
    random = roll_out("random", 1000, **options)
    assert mean_is(random.reward.sum(0)[:, 0], steps / ways)
    assert mean_is(random.success.any(0)[:, 0].float(), 1 / ways)
    assert (roll_out("oracle", 200, **options).reward == 1).all()
    # The i-th class is new once, and its label is one of ways - i + 1.
    harmonic = sum(1 / i for i in range(1, ways + 1))  # 2.283 of 5
    perfect = roll_out("perfect_memory", 500, **options)
    assert mean_is(perfect.reward.sum(0)[:, 0], harmonic + steps - ways)
    assert (perfect.reward[ways * shots :] == 1).all()
    assert perfect.success.any(0).all()
    prototype = roll_out("nearest_prototype", 500, **options)
    returns = float(prototype.reward.sum(0).mean())
    assert steps / ways + 1 < returns < harmonic + steps - ways
    if shots == 1:  # every support image is of a new class, with one of the remaining labels
        assert mean_is(prototype.reward[:ways].sum(0)[:, 0], harmonic)


def test_memory_lasts_over_the_episodes_of_a_trial():
    perfect = roll_out("perfect_memory", 100, episodes=2)
    assert (perfect.reward[10:] == 1).all()
    prototype = roll_out("nearest_prototype", 200, episodes=4)
    share = prototype.episode_returns(4).mean((1, 2)) / 10
    assert share[0] < 0.7
    assert share[1] > share[0] + 0.15
    assert share[3] > share[1]


def prototypes_by_definition(obs, ways, shots):
    """Guesses of one lane; None where any unseen label is allowed."""
    pixels, examples, guesses = obs.shape[1] - ways - 1, {}, []
    for t, row in enumerate(obs):
        if row[pixels:-1].any():
            examples.setdefault(int(row[pixels:-1].argmax()), []).append(obs[t - 1, :pixels])
        allowed = [k for k in examples if row[-1] or len(examples[k]) < shots]
        distance = {k: ((row[:pixels] - np.mean(examples[k], 0)) ** 2).sum() for k in allowed}
        guesses.append(min(distance, key=distance.get) if distance else None)
    return guesses


@pytest.mark.parametrize("shots", [1, 3])
def test_nearest_prototypes_are_means_of_labelled_images(shots):
    trajectory = roll_out("nearest_prototype", 30, ways=4, shots=shots)
    compared = 0
    for task in range(30):
        expected = prototypes_by_definition(trajectory.obs[:, task, 0].double().numpy(), 4, shots)
        for step, guess in enumerate(expected):
            compared += guess is not None
            assert guess in (None, int(trajectory.action[step, task, 0]))
    assert compared >= 30 * 5


def test_rollouts_of_a_thousand_tasks_stay_inside_the_spaces():
    family = FewShotClassification()
    trajectory = roll_out("random", 1000)
    assert trajectory.obs.shape[-1] == family.observation_space.shape[0]
    for obs in (trajectory.obs, trajectory.next_obs):
        assert obs.isfinite().all()
        assert obs.min() >= 0
        assert obs.max() <= 1
    assert set(trajectory.reward.unique().tolist()) == {0.0, 1.0}
    assert (trajectory.episode_lengths(1) == 10).all()
    assert family.trial_episodes == 1


def test_success_is_that_of_the_first_query():
    family = FewShotClassification(images=TINY, ways=2, queries=2)
    tasks, noise = family.sample_tasks(1, seeded(0)), noise_of(1)
    state = family.reset(tasks, noise)
    for wrong_at in range(4):
        current, successes = state, []
        for t in range(4):
            guess = state.label[:, t] if t != wrong_at else 1 - state.label[:, t]
            current, _, _ = family.step(tasks, current, guess, noise)
            successes.append(bool(family.success(tasks, current)))
        assert successes == [False, False, wrong_at != 2, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 0}, "ways=0 must be greater than zero"),
        ({"shots": 0}, "shots=0 must be greater than zero"),
        ({"queries": -1}, "queries=-1 must be greater than zero"),
        ({"rewarded": "some"}, "rewarded='some' of .* one of 'all', 'queries'"),
        ({"images": TINY, "ways": 4}, "ways=4 must not exceed 3: .* 9 classes for training"),
        ({"images": TINY, "ways": 2, "shots": 3}, "shots=3 must be below 3, the images of the"),
        ({"images": "glyph"}, "No images are called 'glyph'. Did you mean 'glyphs'"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FewShotClassification(**options)
