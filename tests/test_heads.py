import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from curate.errors import CurateError
from rm_ensemble.heads import (
    DEFAULT_PENALTY,
    PENALTIES,
    HeadOptions,
    Heads,
    LinearFit,
    PairTargets,
    PairWeights,
    train_heads,
)
from rm_ensemble.losses import preference_loss

DIRECTION = np.array([1.0, -2.0, 0.5, 0.0], dtype=np.float32)


def problem(n_pairs=400, noise=0.0, seed=0):
    """Inputs of 2 texts a pair, whose better one has the larger product with DIRECTION; a share of labels is wrong."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(2 * n_pairs, 4)).astype(np.float32)
    index = np.arange(2 * n_pairs).reshape(-1, 2)
    is_right = (inputs[index[:, 0]] - inputs[index[:, 1]]) @ DIRECTION > 0
    index = np.where((is_right ^ (rng.random(n_pairs) < noise))[:, None], index, index[:, ::-1])
    return inputs, index


def hard_labels(index):
    return PairTargets(index, np.ones(len(index), np.float32), np.zeros(len(index), np.float32))


def alternate(n_pairs, n_models=1):
    """Every pair counts for every model; every fourth is part 0, and so on."""
    part = np.repeat((np.arange(n_pairs) % 4)[:, None], n_models, axis=1).astype(np.int8)
    return PairWeights(np.ones((n_pairs, n_models), np.float32), part)


def no_choice(weight):
    """One part: nothing to choose by."""
    return PairWeights(weight, np.zeros(weight.shape, np.int8))


def differences(heads, inputs, index):
    rewards = heads.rewards(inputs)
    return rewards[index[:, 0]] - rewards[index[:, 1]]


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_head_finds_the_direction(hidden):
    inputs, index = problem()
    heads = train_heads(
        inputs, hard_labels(index), alternate(400), HeadOptions(hidden=hidden, epochs=60, learning_rate=0.03)
    )
    new_inputs, new_index = problem(seed=1)
    assert (differences(heads, new_inputs, new_index) > 0).mean() > 0.9


def test_the_linear_head_is_the_minimum_of_its_loss():
    inputs, index = problem(noise=0.2)
    label_prob = np.linspace(0.6, 1.0, 400).astype(np.float32)
    margin = np.linspace(-0.5, 0.5, 400).astype(np.float32)
    heads = train_heads(inputs, PairTargets(index, label_prob, margin), no_choice(np.ones((400, 1), np.float32)))
    assert heads.settings == [PENALTIES[DEFAULT_PENALTY]]
    z = (inputs[index[:, 0]] - inputs[index[:, 1]]).astype(np.float64)

    def loss(head):
        lead = z @ head - margin
        value = -(label_prob * np.log(expit(lead)) + (1 - label_prob) * np.log(expit(-lead)))
        return value.mean() + PENALTIES[DEFAULT_PENALTY] / 2 * head @ head

    best = minimize(loss, np.zeros(4), method="BFGS").x
    assert heads.arrays["linear"][:, 0] == pytest.approx(best, abs=1e-4)


def test_a_fit_to_few_pairs_of_many_dimensions_is_its_minimum_too():
    """A third of 300 pairs in 200 dimensions: a bound from all pairs alone is too small there, and the steps swing."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(300, 200)).astype(np.float32) / 200**0.5)
    fit = LinearFit(z, hard_labels(np.zeros((300, 2), int)))
    third = torch.zeros(300, 1)
    third[:100] = 1.0
    *_, head = fit.path(third)
    part = z[:100].double()
    gradient = part.T @ (torch.sigmoid(part @ head.double()) - 1) / 100 + PENALTIES[-1] * head.double()
    assert gradient.abs().max() < 1e-4


def test_each_model_learns_from_its_own_pairs_only():
    inputs, index = problem()
    index = np.where((np.arange(400) < 200)[:, None], index, index[:, ::-1])  # the second half teaches the opposite
    half = np.zeros((400, 2), np.float32)
    half[:200, 0], half[200:, 1] = 1, 1
    heads = train_heads(inputs, hard_labels(index), no_choice(half), seeds=(0, 1))
    assert (differences(heads, inputs, index)[:200] > 0).mean(axis=0) == pytest.approx([0.99, 0.01], abs=0.03)


@pytest.mark.parametrize("hidden", [0, 4])
def test_swapping_a_label_negates_the_vote_of_a_model_that_did_not_see_it(hidden):
    inputs, index = problem(100)
    weights = alternate(100)
    weights.weight[7] = 0
    swapped = index.copy()
    swapped[7] = index[7, ::-1]
    options = HeadOptions(hidden=hidden, epochs=3)
    one = differences(train_heads(inputs, hard_labels(index), weights, options), inputs, index)
    other = differences(train_heads(inputs, hard_labels(swapped), weights, options), inputs, swapped)
    assert one[7, 0] == -other[7, 0]
    assert (np.delete(one, 7) == np.delete(other, 7)).all()


def test_noisy_labels_choose_a_stronger_penalty():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 60)).astype(np.float32)
    index = np.arange(400).reshape(-1, 2)
    only_noise = train_heads(inputs, hard_labels(index), alternate(200))
    clean_inputs, clean_index = problem()
    clean = train_heads(clean_inputs, hard_labels(clean_index), alternate(400))
    assert only_noise.settings[0] > clean.settings[0]


@pytest.mark.parametrize("options", [HeadOptions(), HeadOptions(hidden=4, epochs=2, contrastive="simcse")])
def test_the_same_call_gives_the_same_bits_and_leaves_the_global_generator(options):
    inputs, index = problem(60)
    before = torch.random.get_rng_state()
    one, other = (train_heads(inputs, hard_labels(index), alternate(60), options) for _ in range(2))
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    assert torch.equal(before, torch.random.get_rng_state())


def test_members_of_two_layers_differ_by_their_seed_and_do_not_depend_on_their_neighbours():
    inputs, index = problem(60)
    options = HeadOptions(hidden=4, epochs=0)
    alone = train_heads(inputs, hard_labels(index), alternate(60), options, seeds=(5,))
    both = train_heads(inputs, hard_labels(index), alternate(60, 2), options, seeds=(5, 6))
    assert np.array_equal(alone.arrays["first"][0], both.arrays["first"][0])
    assert not np.array_equal(both.arrays["first"][0], both.arrays["first"][1])


def test_a_contrast_needs_a_hidden_layer():
    inputs, index = problem(20)
    with pytest.raises(CurateError, match="--contrastive simcse needs .* add --hidden 64"):
        train_heads(inputs, hard_labels(index), alternate(20), HeadOptions(contrastive="simcse"))


def test_early_stopping_keeps_the_epoch_of_the_lowest_validation_loss():
    inputs, index = problem(120, noise=0.4)
    weights = alternate(120)
    heads = train_heads(inputs, hard_labels(index), weights, HeadOptions(hidden=32, epochs=12, learning_rate=0.05))
    few = train_heads(
        inputs, hard_labels(index), weights, HeadOptions(hidden=32, epochs=heads.settings[0], learning_rate=0.05)
    )
    assert heads.settings[0] < 12
    assert np.array_equal(heads.arrays["second"], few.arrays["second"])


def test_rewards_do_not_depend_on_the_batch():
    heads = Heads({"linear": np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)}, [])
    inputs = np.random.default_rng(1).normal(size=(33, 50)).astype(np.float32)
    alone = np.concatenate([heads.rewards(inputs[i : i + 1]) for i in range(33)])
    assert heads.rewards(inputs) == pytest.approx(alone, abs=1e-5)


def test_a_very_wrong_pair_keeps_its_gradient():
    reward = torch.tensor([-40.0], requires_grad=True)
    preference_loss(reward, torch.zeros(1), torch.zeros(1), torch.ones(1)).sum().backward()
    assert reward.grad.item() == pytest.approx(-1.0)
