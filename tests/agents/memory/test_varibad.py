"""VariBAD: its bound by definition, what trains what, and beliefs about the next reward."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import metarl
from metarl.agents.memory.rl2 import RL2Config
from metarl.agents.memory.trainer import RecurrentAgent
from metarl.agents.memory.varibad import BeliefELBO, VariBADConfig, kl_to_previous
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.trajectory import Trajectory
from tests.recurrent_rollouts import build, collect_trials, context_of
from tests.simple_families import Countdown

pytestmark = pytest.mark.usefixtures("one_thread")

WALK = metarl.make_family("metarl/PointNavigation-v0", steps=20)
ARMS = metarl.make_family("metarl/GoalBandit-v0", arms=2, pulls=4, p_goal=1.0, p_other=0.0)
H, Z = 16, 5


def loss_of(family: TaskFamily, **options: object) -> BeliefELBO:
    config = VariBADConfig(**{"num_tasks": 8, "hidden_size": H} | options)
    return BeliefELBO(config, Z, context_of(family))


def uneven_trials() -> Trajectory:
    """Trials of 2 to 8 steps; rewards of order one."""
    (trajectory,) = collect_trials(build(Countdown()), Countdown()).trajectories
    assert not bool(trajectory.valid.all())
    return replace(trajectory, reward=trajectory.reward / 300)


def random_features(trajectory: Trajectory, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = (*trajectory.valid.flatten(1, 2).shape, H)
    return torch.randn(shape, generator=Seeds(5).torch("features"), dtype=dtype)


def elbo_by_definition(
    loss: BeliefELBO,
    features: Tensor,
    trajectory: Trajectory,
    targets: dict[str, Tensor],
) -> Tensor:
    """Trial by trial, step by step; four steps of the belief at most."""
    valid, bounds = trajectory.valid.flatten(1, 2), []
    columns = [trajectory.obs, trajectory.action, trajectory.reward, trajectory.next_obs]
    obs, action, reward, next_obs = (each.flatten(1, 2).double() for each in columns)
    mean, log_std = features[..., -2 * Z : -Z], features[..., -Z:]
    for lane in range(valid.shape[1]):
        length, terms = int(valid[:, lane].sum()), []
        for place, t in enumerate(targets["order"][: min(4, length), lane].tolist()):
            belief = Normal(mean[t, lane], log_std[t, lane].exp())
            before = Normal(torch.zeros(Z).double(), torch.ones(Z).double())
            if t:
                before = Normal(mean[t - 1, lane], log_std[t - 1, lane].exp())
            latent = belief.mean + belief.stddev * targets["noise"][place, lane]
            term = 0.3 * kl_divergence(belief, before).sum()
            for i in range(length):
                known = torch.cat((obs[i, lane], torch.eye(3).double()[int(action[i, lane])]))
                both = torch.cat((known, next_obs[i, lane]))
                predicted = loss.reward(latent.view(1, 1, Z), both.view(1, 1, -1))
                term = term + (predicted.squeeze() - reward[i, lane]) ** 2
                if loss.next_obs is not None:
                    found = loss.next_obs(latent.view(1, 1, Z), known.view(1, 1, -1)).flatten()
                    term = term + ((found - next_obs[i, lane]) ** 2).mean()
            terms.append(term / length)
        bounds.append(torch.stack(terms).mean())
    return 0.7 * torch.stack(bounds).mean()


@pytest.mark.parametrize("decode_transitions", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_definition(decode_transitions):
    options = {"kl_coef": 0.3, "elbo_coef": 0.7, "elbo_steps": 4}
    loss = loss_of(Countdown(), decode_transitions=decode_transitions, **options).double()
    trajectory = uneven_trials()
    targets = {
        name: value.double() if value.is_floating_point() else value
        for name, value in loss.targets(trajectory).items()
    }
    features = random_features(trajectory).requires_grad_()
    inputs = [features, *loss.parameters()]
    found = loss(features, targets, trajectory.valid.flatten(1, 2).double())
    expected = elbo_by_definition(loss, features, trajectory, targets)
    torch.testing.assert_close(found, expected)
    pairs = zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    )
    for one, two in pairs:
        torch.testing.assert_close(one, two)


def test_the_belief_of_a_lane_without_news_has_no_divergence_but_that_of_its_first_step():
    belief = torch.randn(1, 3, 2 * Z, generator=Seeds(0).torch("belief")).expand(4, 3, -1)
    kl = kl_to_previous(belief)
    assert (kl[0] > 0).all()
    assert not kl[1:].any()
    assert not kl_to_previous(torch.zeros(2, 3, 2 * Z)).any()


def test_steps_after_the_end_of_a_trial_do_not_count():
    loss, trajectory = loss_of(Countdown(), decode_transitions=True), uneven_trials()
    targets, valid = dict(loss.targets(trajectory)), trajectory.valid.flatten(1, 2)
    features = random_features(trajectory, torch.float32)
    before = loss(features, targets, valid.float())
    outside = ~valid
    features[outside] += 1.0
    for name in ("transition", "reward"):
        targets[name] = targets[name].clone()
        targets[name][outside] += 1.0
    assert torch.equal(loss(features, targets, valid.float()), before)
    features[~outside] += 1.0
    assert not torch.equal(loss(features, targets, valid.float()), before)


def test_steps_are_in_random_order_valid_ones_first_and_drawn_again_each_time():
    loss, trajectory = loss_of(Countdown()), uneven_trials()
    one, two = loss.targets(trajectory), loss.targets(trajectory)
    valid = trajectory.valid.flatten(1, 2)
    for order in (one["order"], two["order"]):
        assert torch.equal(order.sort(0).values, torch.arange(8)[:, None].expand(-1, 8))
        assert torch.equal(valid.gather(0, order), valid.sort(0, descending=True).values)
    assert not torch.equal(one["order"], two["order"])
    assert not torch.equal(one["noise"], two["noise"])
    again = loss_of(Countdown())
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.targets(trajectory)["noise"], loss.targets(trajectory)["noise"])


def test_the_bound_trains_encoder_and_decoders_and_ppo_the_rest():
    names = {}
    for coef in (0.0, 1.0):
        agent = build(WALK, memory="belief", elbo_coef=coef)
        before, batch = agent.state(), collect_trials(agent, WALK)
        agent.update(batch)
        after = agent.state()
        names[coef] = {
            name for name in before if name in after and not torch.equal(before[name], after[name])
        }
    assert {"network.trunk.observation.weight", "network.policy.0.weight"} <= names[0.0]
    by_bound = {name for name in names[1.0] - names[0.0] if not name.startswith("optimiser")}
    assert {name.split(".")[2] for name in by_bound if name.startswith("network")} == {
        "embedding",
        "gru",
        "emit",
    }
    assert {name.split(".")[1] for name in by_bound if name.startswith("auxiliary")} == {"reward"}


@pytest.mark.parametrize("normalise_inputs", [False, True])
def test_expected_rewards_are_means_over_samples_in_units_of_the_rewards(normalise_inputs):
    agent = build(Countdown(), memory="belief", normalise_inputs=normalise_inputs)
    (trajectory,) = (batch := collect_trials(agent, Countdown())).trajectories
    if normalise_inputs:
        agent.update(batch)
    loss, features = agent.auxiliary, agent.features(trajectory)
    assert features.shape == (*trajectory.valid.flatten(1, 2).shape, H)
    obs, action = torch.tensor([[3.0, 0.0], [3.0, 1.0]]), torch.tensor([2, 1])
    next_obs = obs + torch.tensor([0.0, 1.0])
    found = loss.expected_rewards(
        features[2], obs, action, next_obs, generator=Seeds(0).torch("samples"), samples=7
    )
    assert found.shape == (2, 8)
    noise = torch.randn((7, 8, Z), generator=Seeds(0).torch("samples"))
    for transition in range(2):
        parts = [obs[transition], next_obs[transition]]
        if normalise_inputs:
            parts = [loss.scale(part) for part in parts]
        known = torch.cat((parts[0], torch.eye(3)[action[transition]], parts[1])).expand(1, 8, -1)
        belief = features[2, :, -2 * Z :]
        latent = belief[:, :Z] + belief[:, Z:].exp() * noise
        expected = loss.reward(latent, known).mean((0, 1, 3))
        if normalise_inputs:  # rewards of the task are hundreds
            expected = expected * loss.reward_scale.deviation + loss.reward_scale.mean
            assert expected.min() > 100
        torch.testing.assert_close(found[transition], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "gru"}, "memory='gru' of varibad must be 'belief' .* Other memories serve rl2"),
        ({"separate_value": True}, "separate_value=True gives the value a belief of its own"),
        ({"elbo_steps": 0}, "elbo_steps=0 must be greater than zero"),
        ({"decoder_size": 0}, "decoder_size=0 must be greater than zero"),
        ({"kl_coef": -1.0}, "kl_coef=-1.0 must lie between"),
        ({"memory_options": {"latent": 3}}, "'belief' has no option 'latent'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        VariBADConfig(**options)


def test_an_agent_that_would_not_train_the_belief_refuses_it():
    with pytest.raises(ConfigError, match="BeliefCore is trained by an auxiliary loss, and this"):
        RL2Config(memory="belief").build(context_of(ARMS))


def test_without_memory_there_is_no_bound():
    config = VariBADConfig(memory="none", num_tasks=8)
    assert not config.reads_next_obs
    assert config.label == "VariBAD without memory"
    assert config.build(context_of(ARMS)).auxiliary is None
    assert VariBADConfig(memory_options={"latent_size": 3}).label == "VariBAD (latent_size=3)"


class ShuffledELBO(BeliefELBO):
    """Beliefs predict the rewards of another trial."""

    def targets(self, experience):
        targets = dict(super().targets(experience))
        order = torch.randperm(targets["reward"].shape[1], generator=Seeds(0).torch("shuffle"))
        return targets | {name: targets[name][:, order] for name in ("reward", "transition")}


@pytest.mark.learning
@pytest.mark.parametrize("kind", [BeliefELBO, ShuffledELBO])
def test_beliefs_about_the_next_reward_follow_the_trial_unless_trained_on_another_one(kind):
    config = VariBADConfig(num_tasks=128, hidden_size=32, iterations=60, learning_rate=4e-3)
    context = context_of(ARMS)
    agent = RecurrentAgent(config, context, kind(config, Z, context))
    for iteration in range(config.iterations):
        agent.update(collect_trials(agent, ARMS, num_tasks=128, seed=iteration))
    tasks = ARMS.sample_tasks(500, Seeds(1).torch("unseen"), "test")
    trajectory = collect(
        ARMS, tasks, agent.start(500, torch.Generator()), episodes=4, seeds=Seeds(1)
    )
    features, obs = agent.features(trajectory), trajectory.obs[0, :2, 0]
    best, advantage = tasks.flatten().long()[None], []
    for step in (0, 3):
        rewards = agent.auxiliary.expected_rewards(
            features[step], obs, torch.arange(2), obs, generator=Seeds(2).torch("samples")
        )
        found, other = rewards.gather(0, best).mean(), rewards.gather(0, 1 - best).mean()
        advantage.append(float(found - other))
    assert abs(advantage[0]) < 0.1  # the first pull is a guess
    if kind is BeliefELBO:
        assert advantage[1] > 0.5
        assert (trajectory.episode_returns(4).mean((1, 2))[1:] > 0.97).all()
    else:
        assert abs(advantage[1]) < 0.1
