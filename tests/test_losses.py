import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rm_ensemble.losses import preference_loss, simcse


def loss(lead: float | Tensor, margin: float = 0.0, label_prob: float = 1.0) -> Tensor:
    chosen = torch.as_tensor(lead, dtype=torch.float32)
    return preference_loss(chosen, torch.zeros_like(chosen), torch.tensor(margin), torch.tensor(label_prob))


def slope(lead: float, label_prob: float = 1.0) -> float:
    reward = torch.tensor(lead, requires_grad=True)
    loss(reward, label_prob=label_prob).backward()
    assert reward.grad is not None
    return reward.grad.item()


def test_equal_rewards_cost_ln_2() -> None:
    assert loss(0.0).item() == pytest.approx(math.log(2))
    assert loss(0.0, label_prob=0.3).item() == pytest.approx(math.log(2))


def test_a_very_wrong_pair_keeps_its_gradient() -> None:
    """-log(sigma(d) + eps) would lose it: exactly where mislabelled pairs sit (METHODS.md 1)."""
    assert slope(-50.0) == pytest.approx(-1)
    assert loss(-50.0).item() == pytest.approx(50)


def test_swapping_the_responses_is_the_same_as_label_prob_zero() -> None:
    chosen, rejected, zero, one = torch.tensor([1.5, -2.0]), torch.tensor([0.2, 3.0]), torch.zeros(2), torch.ones(2)
    swapped = preference_loss(rejected, chosen, zero, one)
    torch.testing.assert_close(preference_loss(chosen, rejected, zero, label_prob=zero), swapped)


def test_a_soft_label_has_its_optimum_at_its_logit() -> None:
    for label_prob in (0.6, 0.8, 0.95):
        assert slope(math.log(label_prob / (1 - label_prob)), label_prob) == pytest.approx(0, abs=1e-6)
    assert slope(0.0, label_prob=0.5) == pytest.approx(0)


def test_the_margin_is_a_lead_that_costs_ln_2() -> None:
    assert loss(0.7, margin=0.7).item() == pytest.approx(math.log(2))
    assert loss(0.7, margin=-0.7).item() < loss(0.7).item() < loss(0.7, margin=0.7).item()


def test_losses_come_back_one_per_pair() -> None:
    assert loss(torch.zeros(3, 2)).shape == (3, 2)


def test_the_loss_is_that_of_trl() -> None:
    """RewardTrainer.compute_loss, with its margin column (test_train.py runs the trainer itself)."""
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, margin = torch.randn(3, 8, generator=generator)
    ours = preference_loss(chosen, rejected, margin, torch.ones(8)).mean()
    torch.testing.assert_close(ours, -logsigmoid(chosen - rejected - margin).mean())


def test_simcse_of_orthogonal_vectors_and_of_equal_ones() -> None:
    """Two orthogonal vectors at temperature 1: ln(1 + 1/e). All alike: ln n."""
    assert simcse(torch.eye(2), torch.eye(2), temperature=1.0).tolist() == pytest.approx([math.log(1 + 1 / math.e)] * 2)
    assert simcse(torch.ones(5, 3), torch.ones(5, 3)).tolist() == pytest.approx([math.log(5)] * 5)


def test_simcse_reads_directions_only_and_has_batch_axes() -> None:
    views = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))  # (views, models, vectors, dims)
    together = simcse(views[0], views[1])
    assert together.shape == (3, 6)
    torch.testing.assert_close(simcse(7 * views[0, 1], views[1, 1]), together[1])
