"""PPO over whole trials: targets, schedules, failures, and auxiliary losses."""

import dataclasses
import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import metarl
from metarl.agent import AgentContext
from metarl.agents.memory.rl2 import RL2Config
from metarl.agents.memory.trainer import RecurrentAgent
from metarl.errors import CheckpointError, NonFiniteError, ShapeError
from metarl.learning.autograd_gradient import take_lanes
from metarl.learning.losses import masked_mean
from metarl.learning.ppo import PPO, AuxiliaryLoss, Batch, PPOConfig
from metarl.networks.actor_critic import ActorCritic, NetworkOptions
from metarl.networks.layers import linear
from metarl.networks.policies import RecurrentPolicy
from metarl.networks.recurrent import GRUOptions
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.trajectory import Trajectory
from tests.recurrent_rollouts import collect_trials, context_of
from tests.simple_families import Countdown

LANES, HIDDEN = 8, 16
BANDIT = metarl.make_family("metarl/BernoulliBandit-v0", pulls=3)
WALK = metarl.make_family("metarl/PointNavigation-v0", steps=20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PPOConfig):
    num_tasks: int = LANES
    iterations: int = 5

    @property
    def label(self):
        return "PPO"

    def build(self, context):
        raise NotImplementedError


def build(
    family: TaskFamily,
    auxiliary: AuxiliaryLoss | None = None,
    *,
    normalise_inputs: bool = False,
    **options: object,
) -> PPO:
    context = AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device("cpu"),
    )
    shape = NetworkOptions(
        memory=GRUOptions(), hidden_size=HIDDEN, normalise_inputs=normalise_inputs
    )
    spaces = family.observation_space, family.action_space
    network = ActorCritic(*spaces, shape, context.seeds.torch("initial weights"))
    return PPO(network, Config(**options), context, auxiliary)


def trials(family: TaskFamily, ppo: PPO, seed: int = 0) -> Trajectory:
    """A trial in each of 8 tasks."""
    tasks = family.sample_tasks(LANES, Seeds(seed).torch("tasks"))
    policy, episodes = RecurrentPolicy(ppo.network), family.trial_episodes
    return collect(family, tasks, policy, episodes=episodes, seeds=Seeds(seed))


def assert_same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name


def test_experience_is_learned_from_in_the_units_in_which_it_was_collected():
    ppo = build(WALK, normalise_inputs=True, learning_rate=1e-12, num_epochs=1)
    scale = ppo.network.scale
    for seed in range(3):  # the units differ from the second iteration on
        trajectory = trials(WALK, ppo, seed)
        before = float(scale.count)
        assert ppo.update(trajectory)["approximate_kl"] < 1e-6
        assert float(scale.count) == before + trajectory.steps
    assert scale.mean[-1] < -0.1  # rewards are negative


def test_the_return_continues_across_episodes_and_ends_with_the_trial():
    family = Countdown(limit=3)
    ppo = build(family, gamma=0.5, gae_lambda=1.0)
    trajectory = trials(family, ppo)
    batch, _ = ppo._advantages_and_targets(trajectory, trajectory.percepts())
    target = ppo.network.value.unscaled(batch.value_target)
    for lane in range(LANES):
        expected, tail = [], 0.0
        for reward, valid in zip(
            reversed(trajectory.reward[:, lane, 0].tolist()),
            reversed(trajectory.valid[:, lane, 0].tolist()),
            strict=True,
        ):
            tail = reward + 0.5 * tail if valid else 0.0
            expected.append(tail)
        valid = trajectory.valid[:, lane, 0]
        returns = torch.tensor(expected[::-1])[valid]
        torch.testing.assert_close(target[:, lane][valid], returns, rtol=1e-4, atol=1e-2)


def test_contents_of_finished_lanes_change_nothing():
    family = Countdown(limit=4)
    one, two = build(family), build(family)
    trajectory = trials(family, one)
    assert not bool(trajectory.valid.all())  # some lanes finish early
    finished = ~trajectory.valid
    changed = dataclasses.replace(
        trajectory,
        obs=trajectory.obs.masked_fill(finished.unsqueeze(-1), 77.0),
        action=trajectory.action.masked_fill(finished, 2),
        log_prob=trajectory.log_prob.masked_fill(finished, -3.0),
    )
    one.update(trajectory)
    two.update(changed)
    for name, value in one.state().items():
        torch.testing.assert_close(two.state()[name], value, rtol=1e-5, atol=1e-6)


def test_schedules_are_linear_to_the_end_of_the_run():
    ppo = build(
        BANDIT,
        iterations=3,
        learning_rate=0.01,
        final_learning_rate=0.002,
        entropy_coef=0.4,
        final_entropy_coef=0.0,
    )
    rows = [ppo.update(trials(BANDIT, ppo)) for _ in range(3)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [0.01, 0.0073333, 0.0046667], rel=1e-4
    )
    assert [row["entropy_coef"] for row in rows] == pytest.approx(
        [0.4, 0.2666667, 0.1333333], rel=1e-4
    )


@pytest.mark.parametrize(("max_grad_norm", "clipped"), [(1e-3, True), (1e3, False)])
def test_gradients_are_clipped_by_norm(max_grad_norm, clipped):
    ppo = build(BANDIT, max_grad_norm=max_grad_norm)
    ppo.update(trials(BANDIT, ppo))
    # The first moment is an average of gradients, so it is no longer than the longest of them.
    moments = [value for name, value in ppo.state().items() if name.endswith("exp_avg")]
    norm = torch.stack([moment.norm() for moment in moments]).norm()
    assert (float(norm) <= 1e-3) == clipped


def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_learner_unchanged():
    ppo = build(BANDIT)
    trajectory = trials(BANDIT, ppo)
    before = ppo.state()
    log_prob = trajectory.log_prob.clone()
    log_prob[0, 3] = torch.nan  # one lane: other minibatches have been learned from already
    with pytest.raises(NonFiniteError, match=r"gradient of PPO became nan in update 0"):
        ppo.update(dataclasses.replace(trajectory, log_prob=log_prob))
    assert_same(before, ppo.state())


class RewardPrediction(AuxiliaryLoss):
    """Squared error of each step's reward, predicted linearly from the features."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.layer = linear(HIDDEN, 1, gain=1.0, generator=torch.Generator().manual_seed(1))

    def targets(self, experience):
        return {"reward": experience.reward.flatten(1, 2)}

    def forward(self, features, targets, valid):
        error = self.layer(features).squeeze(-1) - targets["reward"]
        return self.weight * masked_mean(error.square(), valid)


ONE_STEP = {"num_epochs": 1, "num_minibatches": 1, "max_grad_norm": 1e6}


def gradients(ppo: PPO) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in ppo.network.named_parameters()}


def test_an_auxiliary_loss_adds_its_gradient_to_that_of_the_trunk():
    auxiliary = RewardPrediction(0.7)
    plain, helped = build(BANDIT, **ONE_STEP), build(BANDIT, auxiliary, **ONE_STEP)
    trajectory = trials(BANDIT, plain)
    network = helped.network
    features = network(network.encode(trajectory.percepts()).flatten(1, 2)).features
    loss = auxiliary(
        features, auxiliary.targets(trajectory), trajectory.valid.flatten(1, 2).float()
    )
    trunk = dict(network.trunk.named_parameters(prefix="trunk"))
    added = dict(zip(trunk, torch.autograd.grad(loss, list(trunk.values())), strict=True))
    plain.update(trajectory)
    metrics = helped.update(trajectory)
    assert metrics["auxiliary_loss"] == pytest.approx(float(loss.detach()))
    before, after = gradients(plain), gradients(helped)
    for name, gradient in before.items():
        expected = gradient + added.get(name, 0.0)
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-6)
        assert (name in added) == (not torch.equal(after[name], gradient)), name


# A loss with an auxiliary part is derived by autograd, one without by the compiled library.
@pytest.mark.parametrize(("max_grad_norm", "tolerance"), [(1e6, 1e-4), (1.0, 1e-4)])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_auxiliary_loss_of_weight_zero_changes_no_parameter_of_the_network(
    weight, max_grad_norm, tolerance
):
    plain = build(BANDIT, max_grad_norm=max_grad_norm)
    helped = build(BANDIT, RewardPrediction(weight), max_grad_norm=max_grad_norm)
    for seed in range(3):
        trajectory = trials(BANDIT, plain, seed)
        assert "auxiliary_loss" not in plain.update(trajectory)
        helped.update(trajectory)
    state = helped.state()
    difference = max(
        float((state[name] - value).abs().max())
        for name, value in plain.state().items()
        if name.startswith("network.")
    )
    assert difference <= tolerance if weight == 0 else difference > 1e-3


def test_parameters_of_an_auxiliary_loss_are_trained_saved_and_restored():
    one, two = build(BANDIT, RewardPrediction()), build(BANDIT, RewardPrediction())
    start = one.state()["auxiliary.layer.weight"]
    one.update(trials(BANDIT, one))
    assert (one.state()["auxiliary.layer.weight"] != start).all()
    two.load_state(one.state())
    assert_same(one.state(), two.state())
    trajectory = trials(BANDIT, one, seed=1)
    one.update(trajectory)
    two.update(trajectory)  # the moments of Adam were restored, too
    assert_same(one.state(), two.state())
    with pytest.raises(CheckpointError, match=r"auxiliary.layer.weight .* has nothing"):
        one.load_state(build(BANDIT).state())


class LaneCheck(AuxiliaryLoss):
    """Records how far the features of a minibatch are from those that its targets hold."""

    def __init__(self) -> None:
        super().__init__()
        self.network: ActorCritic | None = None
        self.errors: list[float] = []
        self.lanes: list[list[int]] = []

    @torch.no_grad()
    def targets(self, experience):
        inputs = self.network.encode(experience.percepts()).flatten(1, 2)
        valid = experience.valid.flatten(1, 2)
        lane = torch.arange(valid.shape[1]).expand_as(valid)
        return {"features": self.network(inputs).features, "valid": valid, "lane": lane}

    def forward(self, features, targets, valid):
        self.errors.append(float((features.detach() - targets["features"]).abs().max()))
        self.lanes.append(targets["lane"][0].tolist())
        assert torch.equal(targets["valid"].float(), valid)
        return 0.0 * features.sum()


def test_targets_of_an_auxiliary_loss_are_those_of_the_lanes_of_the_minibatch():
    family, check = Countdown(limit=4), LaneCheck()
    ppo = build(family, check, num_epochs=2, num_minibatches=4, learning_rate=1e-12)
    object.__setattr__(check, "network", ppo.network)  # not a part of the loss
    trajectory = trials(family, ppo)
    features = check.targets(trajectory)["features"]
    assert torch.pdist(features[0]).max() > 0.01  # lanes differ
    ppo.update(trajectory)
    assert len(check.errors) == 8
    assert max(check.errors) < 1e-5
    for epoch in (check.lanes[:4], check.lanes[4:]):
        assert sorted(itertools.chain(*epoch)) == list(range(LANES))
    assert check.lanes[:4] != check.lanes[4:]  # the order is drawn again


def test_taking_lanes_takes_them_from_every_part_of_a_batch():
    lane = torch.arange(4.0).expand(3, 4)
    wide = lane.unsqueeze(-1).expand(3, 4, 2)
    parts = {field.name: lane for field in dataclasses.fields(Batch)}
    batch = Batch(**parts | {"inputs": wide, "auxiliary": {"one": lane, "two": wide}})
    few = take_lanes(batch, torch.tensor([2, 0]))
    for name, value in vars(few).items():
        for each in value.values() if name == "auxiliary" else [value]:
            assert each.shape[:2] == (3, 2), name
            assert each[0, 0].flatten()[0] == 2, name
            assert each[2, 1].flatten()[0] == 0, name
    assert few.auxiliary.keys() == {"one", "two"}


class Failing(AuxiliaryLoss):
    """Raises an error of the library in its third minibatch."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def targets(self, experience):
        return {}

    def forward(self, features, targets, valid):
        self.calls += 1
        if self.calls == 3:
            raise ShapeError("the third minibatch")
        return features.square().mean()


def test_an_update_that_raises_an_error_of_the_library_leaves_the_agent_unchanged():
    agent = RecurrentAgent(
        RL2Config(num_tasks=8, hidden_size=HIDDEN, iterations=5), context_of(BANDIT), Failing()
    )
    before = agent.state()
    with pytest.raises(ShapeError, match="the third minibatch"):
        agent.update(collect_trials(agent, BANDIT))
    after = agent.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Wrong(AuxiliaryLoss):
    """Targets, or a loss, of the wrong axes."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def targets(self, experience):
        reward = experience.reward.flatten(1, 2)
        return {"reward": reward.T if self.part == "targets" else reward}

    def forward(self, features, targets, valid):
        return features.square().mean(0)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "targets",
            r"'reward' of Wrong must be \[T, L, ...\] with T, L = \[6, 8\]; got \[8, 6\]",
        ),
        ("loss", r"Wrong must return one number, the loss; got shape \[2, 16\]"),
    ],
)
def test_an_auxiliary_loss_of_the_wrong_axes_is_refused(part, message):
    family = Countdown(limit=3)
    ppo = build(family, Wrong(part), num_minibatches=4)
    with pytest.raises(ShapeError, match=message):
        ppo.update(trials(family, ppo))
