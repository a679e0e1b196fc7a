"""Episodes of few-shot classification beside a plain loop; no leak, and who can earn how much."""

from collections import Counter

import numpy as np
import pytest
import torch

from metarl.envs.few_shot import images
from metarl.envs.few_shot.classification import FewShotClassification
from metarl.envs.few_shot.classification_references import read
from metarl.envs.few_shot.images import image_set, register_images
from metarl.errors import ConfigError, TaskError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TensorEnv, as_tasks, draw_tasks

TINY = "tiny images of the tests"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def tiny_images(monkeypatch):
    """Twelve classes of 3 to 5 images of 4 pixels, all different; the last three are held out."""
    monkeypatch.setattr(images, "_registered", {})
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), [3, 4, 5] * 4)
    register_images(TINY, rng.uniform(size=(len(labels), 2, 2)), labels)


def live(name, num_tasks, *, seed=0, episodes=1, **options):
    family = FewShotClassification(**options)
    tasks = draw_tasks(family, num_tasks, Seeds(seed).torch("tasks"), "test")
    policy = family.references(episodes)[name].build(tasks)
    return collect(family, tasks, policy, episodes=episodes, seeds=Seeds(seed))


def about(values, expected):
    """Whether the mean over independent lanes is what it should be."""
    values = values.double()
    error = 4 * float(values.std()) / len(values) ** 0.5
    return abs(float(values.mean()) - expected) < max(error, 1e-12)


class PlainEpisode:
    """One lane, one step at a time, from what the state says will be shown."""

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
        right, query = guess == self.labels[self.t], self.t >= support
        reward = float(right and (query or self.family.rewarded == "all"))
        success = right and self.t == support
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
    world = TensorEnv(family, tasks, seeded(1))
    state = family.reset(tasks, seeded(1))  # what the world draws from the same seed
    obs = world.reset()
    plain = [
        PlainEpisode(family, data.pixels[state.image[lane]].numpy(), state.label[lane].tolist())
        for lane in range(8)
    ]
    for _ in range(ways * shots + queries):
        guess = rng.integers(ways, size=8)
        for lane in range(8):
            assert obs[lane].tolist() == plain[lane].observation()
        last = world.step(torch.as_tensor(guess))
        for lane in range(8):
            now = float(last.reward[lane]), bool(last.terminated[lane]), bool(last.success[lane])
            assert now == plain[lane].step(guess[lane])
        obs = last.obs
    for lane in range(8):
        assert obs[lane].tolist() == plain[lane].observation()
        assert not obs[lane, :4].any()
    assert last.terminated.all()


@pytest.mark.parametrize(("shots", "queries"), [(1, 7), (2, 3)])
def test_an_episode_shows_what_it_promises(shots, queries):
    family = FewShotClassification(images=TINY, ways=3, shots=shots, queries=queries)
    data, tasks = image_set(TINY), family.sample_tasks(300, seeded(0))
    state = family.reset(tasks, seeded(1))
    assert (data.class_of[state.image] == tasks.gather(1, state.label)).all()
    for lane in range(300):
        images, labels = state.image[lane].tolist(), state.label[lane].tolist()
        support = images[: 3 * shots]
        assert len(set(support)) == 3 * shots
        assert Counter(labels[: 3 * shots]) == dict.fromkeys(range(3), shots)
        assert not set(support) & set(images[3 * shots :])
        for label in range(3):
            asked = [
                image
                for image, other in zip(images, labels, strict=True)
                if other == label and image not in support
            ]
            left = int(data.count[tasks[lane, label]]) - shots
            assert len(set(asked[:left])) == len(asked[:left])  # none twice while others are left


def test_support_order_queries_and_images_are_uniform():
    family = FewShotClassification(images=TINY, ways=3, shots=1, queries=2)
    task = torch.tensor([[0, 1, 2]]).expand(12_000, 3)
    state = family.reset(task, seeded(0))
    orders = Counter(map(tuple, state.label[:, :3].tolist()))
    assert len(orders) == 6
    assert all(abs(count - 2000) < 200 for count in orders.values())
    queries = Counter(map(tuple, state.label[:, 3:].tolist()))
    assert len(queries) == 9
    assert all(abs(count - 12_000 / 9) < 170 for count in queries.values())
    # Class 2 has five images, all of them as likely, as support and as the first query.
    for column in (0, 3):
        images = Counter(state.image[state.label[:, column] == 2, column].tolist())
        assert set(images) == set(range(7, 12))
        assert max(images.values()) < 1.2 * min(images.values())


def test_the_label_shown_says_nothing_about_the_image_it_is_shown_with():
    family = FewShotClassification(images=TINY, ways=3, shots=2, queries=2)
    tasks = family.sample_tasks(20_000, seeded(0))
    world, state = TensorEnv(family, tasks, seeded(1)), family.reset(tasks, seeded(1))
    obs = world.reset()
    for t in range(8):
        shown, label = read(obs, 3).label, state.label[:, t]
        if t in (0, 7):
            assert not shown.any()
        elif t < 7:
            before = shown.argmax(1)
            assert (before == state.label[:, t - 1]).all()
            # Queries are independent of it. In the support one label less of this kind is left:
            # the share of repeats is 1 of 5, not the 1 of 3 of independence, nor that of a leak.
            chance = 1 / 3 if t >= 6 else 1 / 5
            assert about((before == label).float(), chance)
        obs = world.step(torch.zeros(20_000, dtype=torch.int64)).obs


def test_no_label_is_shown_before_its_guess_whatever_was_guessed():
    family = FewShotClassification(images=TINY, ways=3)
    tasks = family.sample_tasks(50, seeded(0))
    seen = []
    for guess in (0, 2):
        world = TensorEnv(family, tasks, seeded(1))
        seen.append([world.reset()])
        seen[-1] += [world.step(torch.full((50,), guess)).obs for _ in range(8)]
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


@pytest.mark.parametrize("images", [TINY, "glyphs"])
def test_classes_of_training_are_never_those_of_the_test(images):
    family, data = FewShotClassification(images=images, ways=3), image_set(images)
    drawn = {
        split: set(family.sample_tasks(12_000, seeded(0), split).flatten().tolist())
        for split in ("train", "test")
    }
    assert not drawn["train"] & drawn["test"]
    assert drawn["train"] | drawn["test"] == set(range(len(data.count)))


def test_classes_and_their_labels_are_uniform_and_none_comes_twice():
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
    tasks, generator = family.sample_tasks(20, seeded(0)), seeded(1)
    first, second = (family.reset(tasks, generator) for _ in range(2))
    assert (first.image != second.image).float().mean() > 0.9
    for state in (first, second):
        assert (data.class_of[state.image] == tasks.gather(1, state.label)).all()


def test_a_task_is_checked():
    family = FewShotClassification(images=TINY, ways=3)
    assert as_tasks(family, [[0, 11, 3]]).tolist() == [[0, 11, 3]]
    with pytest.raises(TaskError, match=r"Task 1 of 2 is \[0, 12, 3\], outside"):
        as_tasks(family, [[0, 1, 2], [0, 12, 3]])
    with pytest.raises(TaskError, match="whole numbers"):
        as_tasks(family, [[0.0, 1.5, 2.0]])
    with pytest.raises(TaskError, match="must have shape"):
        as_tasks(family, [[0, 1]])


@pytest.mark.parametrize(("ways", "shots", "queries"), [(5, 1, 5), (3, 4, 2)])
def test_references_earn_what_chance_and_memory_allow(ways, shots, queries):
    options = {"ways": ways, "shots": shots, "queries": queries}
    steps = ways * shots + queries
    random = live("random", 1000, **options)
    assert about(random.reward.sum(0)[:, 0], steps / ways)
    assert about(random.success.any(0)[:, 0].float(), 1 / ways)
    assert (live("oracle", 200, **options).reward == 1).all()
    # The i-th class met is new once, and its name is one of ways - i + 1.
    harmonic = sum(1 / i for i in range(1, ways + 1))  # 2.283 of 5
    perfect = live("perfect_memory", 500, **options)
    assert about(perfect.reward.sum(0)[:, 0], harmonic + steps - ways)
    assert (perfect.reward[ways * shots :] == 1).all()
    assert perfect.success.any(0).all()
    prototype = live("nearest_prototype", 500, **options)
    returns = float(prototype.reward.sum(0).mean())
    assert steps / ways + 1 < returns < harmonic + steps - ways
    if shots == 1:  # every image of the support is new, and the label is one of those left
        assert about(prototype.reward[:ways].sum(0)[:, 0], harmonic)


def test_memory_lasts_over_the_episodes_of_a_trial():
    lived = live("perfect_memory", 100, episodes=2)
    assert (lived.reward[10:] == 1).all()
    lived = live("nearest_prototype", 200, episodes=4)
    share = lived.episode_returns(4).mean((1, 2)) / 10
    assert share[0] < 0.7
    assert share[1] > share[0] + 0.15
    assert share[3] > share[1]


def prototypes_by_definition(obs, ways, shots):
    """Guesses of one lane; None where it may guess any label not seen yet."""
    pixels, seen, guesses = obs.shape[1] - ways - 1, {}, []
    for t, row in enumerate(obs):
        if row[pixels:-1].any():
            seen.setdefault(int(row[pixels:-1].argmax()), []).append(obs[t - 1, :pixels])
        open_labels = [k for k in seen if row[-1] or len(seen[k]) < shots]
        distance = {k: ((row[:pixels] - np.mean(seen[k], 0)) ** 2).sum() for k in open_labels}
        guesses.append(min(distance, key=distance.get) if distance else None)
    return guesses


@pytest.mark.parametrize("shots", [1, 3])
def test_nearest_prototypes_are_means_of_what_was_seen(shots):
    lived = live("nearest_prototype", 30, ways=4, shots=shots)
    told = 0
    for task in range(30):
        expected = prototypes_by_definition(lived.obs[:, task, 0].double().numpy(), 4, shots)
        for step, guess in enumerate(expected):
            told += guess is not None
            assert guess in (None, int(lived.action[step, task, 0]))
    assert told >= 30 * 5


def test_lives_of_a_thousand_tasks_stay_inside_the_spaces():
    family = FewShotClassification()
    lived = live("random", 1000)
    assert lived.obs.shape[-1] == family.observation_space.shape[0]
    for obs in (lived.obs, lived.next_obs):
        assert obs.isfinite().all()
        assert obs.min() >= 0
        assert obs.max() <= 1
    assert set(lived.reward.unique().tolist()) == {0.0, 1.0}
    assert (lived.episode_lengths(1) == 10).all()
    assert family.trial_episodes == 1


def test_the_first_query_is_the_success_of_an_episode():
    family = FewShotClassification(images=TINY, ways=2, queries=2)
    tasks = family.sample_tasks(1, seeded(0))
    state = family.reset(tasks, seeded(0))
    for wrong_at in range(4):
        now, successes = state, []
        for t in range(4):
            guess = state.label[:, t] if t != wrong_at else 1 - state.label[:, t]
            now, _, _ = family.step(tasks, now, guess, seeded(0))
            successes.append(bool(family.success(tasks, now)))
        assert successes == [False, False, wrong_at != 2, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 0}, "ways=0 must be greater than zero"),
        ({"shots": 0}, "shots=0 must be greater than zero"),
        ({"queries": -1}, "queries=-1 must be greater than zero"),
        ({"rewarded": "some"}, "rewarded='some' must be one of all, queries"),
        ({"images": TINY, "ways": 4}, "ways=4 must not exceed 3: .* 9 classes are for training"),
        ({"images": TINY, "ways": 2, "shots": 3}, "shots=3 must be below 3, the images of the"),
        ({"images": "glyph"}, "No images are called 'glyph'. Did you mean 'glyphs'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FewShotClassification(**options)
