"""Imitation: replayed references, labels, the loss by its definition, choices, and failures."""

import dataclasses
import math
from collections.abc import Mapping

import pytest
import torch

import metarl
from metarl.agent import AgentContext, MetaBatch, Phase, PolicyOutput, Reference
from metarl.errors import ConfigError, NonFiniteError, ShapeError
from metarl.learning.imitation import (
    GuidedPolicy,
    Imitation,
    ImitationConfig,
    choose_reference,
    guided_lanes,
    replayed_actions,
)
from metarl.networks.actor_critic import ActorCritic, NetworkOptions
from metarl.networks.policies import RecurrentPolicy, UniformPolicy
from metarl.networks.recurrent import GRUOptions
from metarl.noise import LaneNoise, lane_keys
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily, draw_tasks
from tests.known_ids import FAMILIES
from tests.simple_families import Countdown, Recorder

TASKS = 8
BANDIT = metarl.make_family("metarl/BernoulliBandit-v0", arms=3, pulls=6)
WALK = metarl.make_family("metarl/PointNavigation-v0", steps=20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImitationConfig):
    num_tasks: int = TASKS
    iterations: int = 5

    @property
    def label(self):
        return "imitation"

    def build(self, context):
        raise NotImplementedError


def build(
    family: TaskFamily, references: Mapping[str, Reference] | None = None, **options: object
) -> Imitation:
    listed = family.references(family.trial_episodes) if references is None else references
    context = AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device("cpu"),
        references=lambda: listed,
    )
    shape = NetworkOptions(memory=GRUOptions(), hidden_size=16)
    spaces = family.observation_space, family.action_space
    network = ActorCritic(*spaces, shape, context.seeds.torch("initial weights"))
    return Imitation(network, Config(**options), context)


def batch_of(family: TaskFamily, imitation: Imitation, seed: int = 0) -> MetaBatch:
    """A trial in each of 8 tasks."""
    tasks = draw_tasks(family, TASKS, Seeds(seed).torch("tasks"), "train")
    policy = RecurrentPolicy(imitation.network)
    trials = collect(family, tasks, policy, episodes=family.trial_episodes, seeds=Seeds(seed))
    return MetaBatch(tasks=tasks, phases=(Phase(policy=policy, trajectory=trials, cache=None),))


def policy_noise(seeds: Seeds, rollouts: int = 1) -> LaneNoise:
    """The noise that `collect` gives to a policy in 8 tasks."""
    return LaneNoise(lane_keys(seeds.word("policy"), TASKS, rollouts))


@pytest.mark.parametrize(
    ("task_id", "name"),
    [(task_id, name) for task_id in FAMILIES for name in metarl.make_family(task_id).references(2)],
)
def test_a_reference_replayed_on_its_own_experience_takes_the_same_actions(task_id, name):
    family = metarl.make_family(task_id)
    tasks = draw_tasks(family, TASKS, Seeds(0).torch("tasks"), "train")
    policy = family.references(2)[name].build(tasks)
    trials = collect(family, tasks, policy, episodes=2, rollouts_per_task=2, seeds=Seeds(1))
    replayed = replayed_actions(policy, trials, policy_noise(Seeds(1), 2))
    valid = trials.valid.flatten(1, 2)
    assert torch.equal(replayed[valid], trials.action.flatten(1, 2)[valid])


def test_labels_follow_the_actions_that_were_taken():
    tasks = draw_tasks(BANDIT, TASKS, Seeds(0).torch("tasks"), "train")
    trials = collect(BANDIT, tasks, Recorder(noise=True), episodes=6, seeds=Seeds(1))
    greedy = BANDIT.references(6)["greedy"].build(tasks)
    labels = replayed_actions(greedy, trials, policy_noise(Seeds(1)))
    for lane in range(TASKS):
        payouts, pulls = [0] * 3, [0] * 3
        for step in range(6):
            means = [(1 + paid) / (2 + count) for paid, count in zip(payouts, pulls, strict=True)]
            assert labels[step, lane] == means.index(max(means))
            arm = int(trials.action[step, lane, 0])
            payouts[arm] += int(trials.reward[step, lane, 0])
            pulls[arm] += 1
    assert (labels != trials.action.flatten(1, 2)).any()


def test_labels_of_win_stay_are_about_the_choices_of_the_policy_that_acted():
    family = metarl.make_family("metarl/TwoStep-v0", rounds=10)
    tasks = draw_tasks(family, TASKS, Seeds(0).torch("tasks"), "train")
    random = UniformPolicy(family.action_space)
    trials = collect(family, tasks, random, episodes=2, seeds=Seeds(1))
    labels = replayed_actions(
        family.references(2)["win_stay"].build(tasks), trials, policy_noise(Seeds(2))
    )
    choice, paid = trials.action[::2, :, 0], trials.reward[1::2, :, 0] > 0
    expected = torch.where(paid, choice, 1 - choice)[:-1]
    assert torch.equal(labels[2::2], expected)


def test_the_loss_is_the_negative_log_likelihood_of_valid_labels():
    family = Countdown(limit=4)
    constant = Reference(role="baseline", label="counts", build=lambda _: Recorder())
    imitation = build(family, {"counts": constant}, num_minibatches=1, learning_rate=1e-12)
    batch = batch_of(family, imitation)
    (trials,) = batch.trajectories
    assert not bool(trials.valid.all())
    network = imitation.network
    with torch.no_grad():
        logits = network(network.encode(trials.percepts()).flatten(1, 2)).dist_params.double()
    total, count, agreed = 0.0, 0, 0
    for step, lane in trials.valid[..., 0].nonzero().tolist():
        scores = logits[step, lane].tolist()
        total += math.log(sum(math.exp(score) for score in scores)) - scores[step % 3]
        count += 1
        agreed += int(trials.action[step, lane, 0]) == step % 3
    metrics = imitation.update(batch)
    assert metrics["imitation_loss"] == pytest.approx(total / count, rel=1e-5)
    assert metrics["agreement"] == pytest.approx(agreed / count, rel=1e-5)


def test_the_loss_of_box_actions_is_a_density_in_units_of_the_bounds():
    imitation = build(WALK, num_minibatches=1, learning_rate=1e-12)
    batch = batch_of(WALK, imitation)
    (trials,) = batch.trajectories
    network = imitation.network
    with torch.no_grad():
        params = network(network.encode(trials.percepts()).flatten(1, 2)).dist_params.double()
    mean, log_std = params.chunk(2, -1)
    goals, bound = batch.tasks.double(), float(WALK.action_space.high[0])
    move = ((goals - trials.obs[:, :, 0].double()) / bound).clamp(-1.0, 1.0)
    expected = -torch.distributions.Normal(mean, log_std.exp()).log_prob(move).sum(-1).mean()
    taken = (trials.action[:, :, 0].double() / bound).clamp(-1.0, 1.0)
    metrics = imitation.update(batch)
    assert metrics["imitation_loss"] == pytest.approx(float(expected), rel=1e-4)
    difference = float((taken - move).square().sum(-1).mean())
    assert metrics["squared_difference"] == pytest.approx(difference, rel=1e-4)


def test_contents_of_finished_lanes_change_nothing():
    family = Countdown(limit=4)
    references = {"counts": Reference(role="baseline", label="", build=lambda _: Recorder())}
    one, two = build(family, references), build(family, references)
    batch = batch_of(family, one)
    (trials,) = batch.trajectories
    idle = ~trials.valid
    assert idle.any()
    changed = dataclasses.replace(
        trials,
        obs=trials.obs.masked_fill(idle.unsqueeze(-1), 77.0),
        action=trials.action.masked_fill(idle, 2),
    )
    phase = dataclasses.replace(batch.phases[0], trajectory=changed)
    one.update(batch)
    two.update(dataclasses.replace(batch, phases=(phase,)))
    for name, value in one.state().items():
        torch.testing.assert_close(two.state()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reference", ["thompson", "best_arm"])
def test_imitation_continues_from_its_state_exactly(reference):
    one, two = build(BANDIT, reference=reference), build(BANDIT, reference=reference)
    one.update(batch_of(BANDIT, one))
    two.load_state(one.state())
    batch = batch_of(BANDIT, one, seed=1)
    assert one.update(batch) == two.update(batch)
    for name, value in one.state().items():
        assert torch.equal(two.state()[name], value), name
    used = [n for n, p in one.network.named_parameters() if p.grad is not None and p.grad.any()]
    assert set(used) == {n for n, _ in one.network.named_parameters() if n[:6] != "value."}


def test_labels_of_a_random_reference_differ_from_update_to_update():
    imitation = build(BANDIT, reference="random", learning_rate=1e-12)
    batch = batch_of(BANDIT, imitation)
    first, second = (imitation.update(batch)["agreement"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("share", "lanes", "expected"),
    [
        (0.0, 4, [False, False, False, False]),
        (0.5, 4, [False, True, False, True]),
        (0.3, 4, [False, False, False, True]),
        (1.0, 4, [False, True, True, True]),
        (1.0, 1, [False]),
    ],
)
def test_guided_lanes_are_spread_over_tasks_and_never_all(share, lanes, expected):
    assert guided_lanes(share, lanes).tolist() == expected


def test_the_reference_acts_in_guided_trials_alone():
    reference = BANDIT.references(6)["greedy"]
    tasks = draw_tasks(BANDIT, TASKS, Seeds(0).torch("tasks"), "train")
    guided = guided_lanes(0.5, TASKS)
    mixed = GuidedPolicy(
        learner=Recorder(noise=True), reference=reference.build(tasks), guided=guided
    )
    actions = [
        collect(BANDIT, tasks, policy, episodes=6, seeds=Seeds(1)).action[:, :, 0]
        for policy in (mixed, Recorder(noise=True), reference.build(tasks))
    ]
    assert torch.equal(actions[0][:, ~guided], actions[1][:, ~guided])
    assert torch.equal(actions[0][:, guided], actions[2][:, guided])
    assert not torch.equal(actions[1], actions[2])


def test_guidance_falls_linearly_to_none_and_its_trials_do_not_count_as_agreement():
    imitation = build(BANDIT, reference="best_arm", guided_fraction=0.8, learning_rate=1e-12)
    shares = []
    for seed in range(5):
        tasks = draw_tasks(BANDIT, TASKS, Seeds(seed).torch("tasks"), "train")
        learner = RecurrentPolicy(imitation.network)
        policy = imitation.acting(learner, tasks, 1)
        trials = collect(BANDIT, tasks, policy, episodes=6, seeds=Seeds(seed))
        shares.append(imitation.guided_share)
        own = ~guided_lanes(shares[-1], TASKS)
        best = tasks.argmax(1)[own]
        expected = (trials.action[:, own, 0] == best).double().mean()
        phase = Phase(policy=policy, trajectory=trials, cache=None)
        metrics = imitation.update(MetaBatch(tasks=tasks, phases=(phase,)))
        assert metrics["guided_share"] == shares[-1]
        assert metrics["agreement"] == pytest.approx(float(expected), rel=1e-5)
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert policy is learner


def floor_to_ceiling(**open_loop: bool) -> dict[str, Reference]:
    roles = {
        "random": "floor",
        "greedy": "baseline",
        "gittins": "baseline",
        "optimum": "ceiling",
        "oracle": "ceiling",
    }
    return {
        name: Reference(
            role=role,
            label=name,
            build=lambda _: Recorder(),
            open_loop=open_loop.get(name, False),
        )
        for name, role in roles.items()
    }


@pytest.mark.parametrize(
    ("without", "expected"),
    [([], "optimum"), (["optimum"], "oracle"), (["optimum", "oracle"], "gittins")],
)
def test_by_default_the_first_ceiling_or_else_the_last_baseline_is_imitated(without, expected):
    known = floor_to_ceiling()
    few = {name: one for name, one in known.items() if name not in without}
    assert choose_reference(few, None) is known[expected]
    blind = floor_to_ceiling(**dict.fromkeys(without, True))
    assert choose_reference(blind, None) is blind[expected]


def test_a_reference_is_chosen_by_name():
    known = floor_to_ceiling()
    assert choose_reference(known, "random") is known["random"]


@pytest.mark.parametrize(
    ("known", "name", "message"),
    [
        (
            floor_to_ceiling(),
            "gitins",
            r"no reference='gitins' .* Did you mean 'gittins'\? References of this family that can "
            "be imitated: random, greedy, gittins, optimum, oracle",
        ),
        (
            floor_to_ceiling(optimum=True),
            "optimum",
            "reference='optimum' cannot be imitated: it follows a plan .* random, greedy, gittins, "
            "oracle",
        ),
        ({}, None, r"no reference that is worth imitating.* can be imitated: none\)"),
        ({}, "oracle", "no reference='oracle' .* can be imitated: none"),
        (
            {"random": floor_to_ceiling()["random"]},
            None,
            r"no reference that is worth imitating.* can be imitated: random\)",
        ),
    ],
)
def test_a_reference_that_cannot_be_imitated_is_refused(known, name, message):
    with pytest.raises(ConfigError, match=message):
        choose_reference(known, name)


def test_references_that_follow_a_plan_whatever_was_taken_say_so():
    found = {
        (task_id, name)
        for task_id in FAMILIES
        for name, one in metarl.make_family(task_id).references(2).items()
        if one.open_loop
    }
    assert found == {
        ("metarl/GridNavigation-v0", "bayes_optimal"),
        ("metarl/KrazyWorld-v0", "oracle"),
    }


class WrongShape(Recorder):
    """Returns one action for all lanes."""

    def act(self, percept, memory, noise):
        return PolicyOutput(torch.zeros(1, dtype=torch.int64), memory, memory)


def test_actions_of_another_shape_are_refused():
    reference = Reference(role="baseline", label="odd", build=lambda _: WrongShape())
    imitation = build(BANDIT, {"odd": reference})
    with pytest.raises(ShapeError, match=r"'odd' gave actions .* \[6, 1\], but .* \[6, 8\]"):
        imitation.update(batch_of(BANDIT, imitation))


def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_learner_unchanged():
    imitation = build(BANDIT, num_minibatches=4)
    batch = batch_of(BANDIT, imitation)
    (trials,) = batch.trajectories
    obs = trials.obs.clone()
    obs[0, 3] = torch.nan  # one lane: other minibatches have been learned from already
    phase = dataclasses.replace(batch.phases[0], trajectory=dataclasses.replace(trials, obs=obs))
    before = imitation.state()
    with pytest.raises(NonFiniteError, match=r"gradient of the imitation became nan .* update 0"):
        imitation.update(dataclasses.replace(batch, phases=(phase,)))
    after = imitation.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
