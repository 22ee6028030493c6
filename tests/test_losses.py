import math
from itertools import combinations, permutations
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers import LlamaConfig, LlamaForCausalLM

from rm_ensemble.losses import (
    centring_loss,
    forward_corrected_loss,
    language_loss,
    mean_per_list,
    plackett_luce_loss,
    pointwise_loss,
    preference_loss,
)

PAIRWISE = [preference_loss, forward_corrected_loss]


def listwise_loss(reward, rank):
    """The mean pairwise loss over the pairs that each list's ranks order."""
    number, better, worse = (rank[:, :, None] < rank[:, None, :]).nonzero(as_tuple=True)
    one, zero = torch.ones(len(number)), torch.zeros(len(number))
    losses = preference_loss(reward[number, better], reward[number, worse], margin=zero, label_prob=one)
    return mean_per_list(losses, number, len(rank))


LISTWISE = [listwise_loss, plackett_luce_loss]

leads = st.floats(-8, 8, width=32)
label_probs = st.floats(0.015625, 0.984375, width=32)
ranked_lists = st.lists(
    st.lists(st.tuples(st.floats(-8, 8, width=32), st.integers(1, 3)), min_size=1, max_size=4), min_size=1, max_size=4
)


def loss(lead: float | Tensor, margin: float = 0.0, label_prob: float = 1.0, of=preference_loss) -> Tensor:
    chosen = torch.as_tensor(lead, dtype=torch.float32)
    return of(chosen, torch.zeros_like(chosen), torch.tensor(margin), torch.tensor(label_prob))


def slope(lead: float, label_prob: float = 1.0, of=preference_loss) -> float:
    reward = torch.tensor(lead, requires_grad=True)
    loss(reward, label_prob=label_prob, of=of).backward()
    return reward.grad.item()


def padded(lists: list[list[tuple[float, int]]]) -> tuple[Tensor, Tensor]:
    """Lists of (reward, rank) as the tensors of the listwise losses; absurd rewards where a list has no response."""
    width = max(map(len, lists))
    filled = torch.tensor([[*responses, *[(1e6, math.nan)] * (width - len(responses))] for responses in lists])
    return filled[..., 0].requires_grad_(), filled[..., 1]


def trl_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None, centring: float | None) -> Tensor:
    """RewardTrainer.compute_loss of a model that gives these rewards."""
    trl = pytest.importorskip("trl")
    trainer = MagicMock()  # has the trainer's metrics and accelerator, which the loss does not depend on
    trainer.model.training, trainer.args.center_rewards_coefficient = False, centring
    logits = torch.cat([chosen, rejected])[:, None]
    inputs = {} if margin is None else {"margin": margin}
    return trl.RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits), inputs)


@pytest.mark.parametrize("of", PAIRWISE)
def test_equal_rewards_cost_ln_2(of) -> None:
    assert loss(0.0, of=of).item() == pytest.approx(math.log(2))
    assert loss(0.0, label_prob=0.3, of=of).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("of", PAIRWISE)
def test_a_very_wrong_pair_keeps_its_gradient(of) -> None:
    """-log(sigma(d) + eps) would lose it: exactly where mislabelled pairs sit (METHODS.md 1)."""
    assert slope(-200.0, of=of) == pytest.approx(-1)
    assert loss(-200.0, of=of).item() == pytest.approx(200)
    assert slope(200.0, label_prob=0.0, of=of) == pytest.approx(1)


@pytest.mark.parametrize("of", PAIRWISE)
@given(lead=leads, margin=leads, label_prob=label_probs)
def test_swapping_a_pair_turns_its_margin_and_its_label(of, lead, margin, label_prob) -> None:
    given_pair = loss(lead, margin, label_prob, of)
    swapped = of(torch.tensor(0.0), torch.tensor(lead), torch.tensor(-margin), torch.tensor(1 - label_prob))
    torch.testing.assert_close(given_pair, swapped)


@given(lead=leads, label_prob=label_probs)
def test_a_soft_label_pulls_to_its_logit(lead, label_prob) -> None:
    """The gradient is sigma(d) - p: zero at d = logit(p), a tie where p is 0.5, and never lost on a very wrong pair."""
    assert slope(lead, label_prob) == pytest.approx(expit(lead) - label_prob, abs=1e-6)
    assert slope(math.log(label_prob / (1 - label_prob)), label_prob) == pytest.approx(0, abs=1e-6)
    assert slope(-100.0, label_prob) == pytest.approx(-label_prob)


@given(lead=leads, label_prob=label_probs)
def test_forward_correction_and_its_gradient_are_those_of_the_formula(lead, label_prob) -> None:
    e, p = 1 - label_prob, expit(lead)
    seen = (1 - e) * p + e * (1 - p)
    assert loss(lead, label_prob=label_prob, of=forward_corrected_loss).item() == pytest.approx(
        -math.log(seen), abs=1e-6
    )
    gradient = -(1 - 2 * e) * p * (1 - p) / seen
    assert slope(lead, label_prob, forward_corrected_loss) == pytest.approx(gradient, abs=1e-6)


def test_forward_correction_drops_at_one_half_and_gives_up_very_wrong_pairs() -> None:
    for lead in (-3.0, 0.0, 2.0):
        assert slope(lead, 0.5, forward_corrected_loss) == pytest.approx(0, abs=1e-7)
        assert slope(lead, 0.9, forward_corrected_loss) < 0 < slope(lead, 0.1, forward_corrected_loss)
    assert loss(-100.0, label_prob=0.9, of=forward_corrected_loss).item() == pytest.approx(-math.log(0.1))
    assert slope(-100.0, 0.9, forward_corrected_loss) == pytest.approx(0, abs=1e-6)


@given(lead=leads, margin=leads, label_prob=st.sampled_from([0.0, 1.0]))
def test_forward_correction_of_a_certain_label_is_the_plain_loss(lead, margin, label_prob) -> None:
    corrected = loss(lead, margin, label_prob, forward_corrected_loss)
    torch.testing.assert_close(corrected, loss(lead, margin, label_prob))


@given(lead=leads, label_prob=label_probs)
def test_forward_correction_finds_the_true_lead_from_flipped_labels(lead, label_prob) -> None:
    """Over the labels that are seen its mean has its minimum where the labels before the flips put it."""
    seen = label_prob * expit(lead) + (1 - label_prob) * expit(-lead)
    mean_slope = seen * slope(lead, label_prob, forward_corrected_loss)
    mean_slope -= (1 - seen) * slope(-lead, label_prob, forward_corrected_loss)
    assert mean_slope == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("of", PAIRWISE)
def test_the_margin_is_a_lead_that_costs_ln_2(of) -> None:
    for label_prob in (1.0, 0.8):
        assert loss(0.7, 0.7, label_prob, of).item() == pytest.approx(math.log(2))
        assert loss(0.7, -0.7, 0.9, of).item() < loss(0.7, 0.0, 0.9, of).item() < loss(0.7, 0.7, 0.9, of).item()


@pytest.mark.parametrize("of", PAIRWISE)
def test_arguments_broadcast_and_losses_come_back_one_per_pair(of) -> None:
    label_prob = torch.tensor([[1.0], [0.8], [0.5]])  # (pairs, 1) against (pairs, models)
    found = of(torch.ones(3, 2), torch.zeros(3, 2), torch.zeros(3, 1), label_prob)
    assert found.shape == (3, 2)
    torch.testing.assert_close(found[1, 0], loss(1.0, label_prob=0.8, of=of))


@pytest.mark.filterwarnings("ignore")  # trl's own
@pytest.mark.parametrize("centring", [None, 0.01])
@pytest.mark.parametrize("has_margin", [False, True])
def test_the_loss_is_that_of_trl(has_margin, centring) -> None:
    """Its loss function on fixed rewards (test_train.py runs the trainer itself)."""
    chosen, rejected, margin = 3 * torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    ours = preference_loss(chosen, rejected, margin if has_margin else torch.zeros(8), torch.ones(8)).mean()
    ours = ours + (centring or 0) * centring_loss(chosen, rejected).mean()
    torch.testing.assert_close(ours, trl_loss(chosen, rejected, margin if has_margin else None, centring))


def test_centring_holds_the_mean_reward_at_zero_and_leaves_the_lead() -> None:
    chosen, rejected = torch.tensor([2.5, 1.0]).requires_grad_(), torch.tensor([0.5, -1.0]).requires_grad_()
    found = centring_loss(chosen, rejected)
    assert found.tolist() == [9.0, 0.0]
    found.sum().backward()
    assert chosen.grad.tolist() == rejected.grad.tolist() == [6.0, 0.0]


def test_pointwise_is_the_squared_error_of_each_text() -> None:
    reward, rating = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    assert pointwise_loss(reward, rating).shape == (9,)
    torch.testing.assert_close(pointwise_loss(reward, rating).mean(), mse_loss(reward, rating))


@pytest.mark.parametrize("of", LISTWISE)
@given(lead=leads)
def test_a_list_of_two_is_a_pair(of, lead) -> None:
    reward, rank = padded([[(lead, 1), (0.0, 2)], [(0.0, 2), (lead, 1)]])
    torch.testing.assert_close(of(reward, rank), loss(lead).expand(2))


@given(lists=ranked_lists)
def test_listwise_is_the_mean_over_the_ordered_pairs_of_each_list(lists) -> None:
    for responses, found in zip(lists, listwise_loss(*padded(lists)), strict=True):
        pairs = [sorted(pair, key=lambda r: r[1]) for pair in combinations(responses, 2) if pair[0][1] != pair[1][1]]
        losses = [loss(better[0] - worse[0]).item() for better, worse in pairs]
        assert found.item() == pytest.approx(sum(losses) / max(len(losses), 1), rel=1e-5, abs=1e-6)


@given(lists=ranked_lists)
def test_plackett_luce_picks_each_response_from_itself_and_those_strictly_below(lists) -> None:
    for responses, found in zip(lists, plackett_luce_loss(*padded(lists)), strict=True):
        expected = 0.0
        for reward, rank in responses:
            below = [math.exp(other - reward) for other, its_rank in responses if its_rank > rank]
            expected += math.log(1 + sum(below))
        assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_plackett_luce_is_a_distribution_over_the_orders_of_a_list() -> None:
    """Every order's probability is the product of its picks, and all orders together have probability 1."""
    rewards = [0.3, -1.2, 2.0, 0.7]
    orders = list(permutations(range(4)))
    ranks = torch.tensor([[order.index(response) + 1 for response in range(4)] for order in orders])
    chances = torch.exp(-plackett_luce_loss(torch.tensor(rewards).expand(24, 4), ranks))
    assert chances.sum().item() == pytest.approx(1)
    for order, chance in zip(orders, chances.tolist(), strict=True):
        worth = [math.exp(rewards[response]) for response in order]
        assert chance == pytest.approx(math.prod(worth[k] / sum(worth[k:]) for k in range(4)))


def test_plackett_luce_of_one_best_response_is_its_cross_entropy() -> None:
    reward = torch.randn(5, generator=torch.Generator().manual_seed(0))
    found = plackett_luce_loss(reward, torch.tensor([2, 2, 1, 2, 2]))
    torch.testing.assert_close(found, cross_entropy(reward, torch.tensor(2)))


@pytest.mark.parametrize("of", LISTWISE)
def test_nothing_orders_tied_responses_nor_pulls_them_together(of) -> None:
    """The worse of two tied best ones is pushed as if it were alone above the third."""
    both, rank = padded([[(2.0, 1), (-1.0, 1), (0.0, 2)]])
    alone, alone_rank = padded([[(-1.0, 1), (0.0, 2)]])
    of(both, rank).sum().backward()
    of(alone, alone_rank).sum().backward()
    n_pairs = {listwise_loss: 2, plackett_luce_loss: 1}[of]  # listwise is the mean over both pairs
    assert both.grad[0, 1].item() * n_pairs == pytest.approx(alone.grad[0, 0].item())


@pytest.mark.parametrize("of", LISTWISE)
def test_a_list_that_orders_nothing_costs_nothing(of) -> None:
    reward, rank = padded([[(1.5, 1)], [(1.5, 2), (-30.0, 2), (4.0, 2)], [(0.0, 1), (1.0, 2)]])
    found = of(reward, rank)
    found.sum().backward()
    assert found[:2].tolist() == [0, 0]
    assert reward.grad[:2].tolist() == [[0, 0, 0]] * 2
    assert (reward.grad[2] != 0).tolist() == [True, True, False]


@pytest.mark.parametrize("of", LISTWISE)
@given(lists=ranked_lists, shift=st.floats(-4, 4, width=32))
def test_a_list_depends_on_differences_of_rewards_and_the_order_of_ranks_alone(of, lists, shift) -> None:
    reward, rank = padded(lists)
    found = of(reward, rank)
    torch.testing.assert_close(of(reward + shift, rank), found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of(reward, rank.exp()), found)
    torch.testing.assert_close(of(reward.flip(1), rank.flip(1)), found)


@pytest.mark.parametrize("of", LISTWISE)
@given(lists=ranked_lists)
def test_lists_do_not_touch_one_another_and_padding_has_no_gradient(of, lists) -> None:
    reward, rank = padded(lists)
    found = of(reward, rank)
    torch.testing.assert_close(found, torch.cat([of(*padded([responses])) for responses in lists]))
    found.sum().backward()
    assert reward.grad[rank.isnan()].abs().sum() == 0
    assert reward.grad.sum(dim=1).abs().max().item() == pytest.approx(0, abs=1e-5)  # shifting a list changes nothing


@pytest.mark.parametrize("of", LISTWISE)
def test_a_very_wrong_list_keeps_its_gradient(of) -> None:
    reward, rank = padded([[(-200.0, 1), (0.0, 2)]])
    found = of(reward, rank)
    found.sum().backward()
    assert found.item() == pytest.approx(200)
    assert reward.grad.tolist() == [[-1, 1]]


def language_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits and tokens of three texts of seven tokens: prompts of 2, 5 and 4 tokens, paddings of 0, 1 and 3."""
    generator = torch.Generator().manual_seed(0)
    logits, tokens = torch.randn(3, 7, 11, generator=generator), torch.randint(11, (3, 7), generator=generator)
    place = torch.arange(7)
    is_response = (place >= torch.tensor([[2], [5], [4]])) & (place < torch.tensor([[7], [6], [4]]))
    return logits.requires_grad_(), tokens, is_response


def test_language_loss_is_torchs_cross_entropy_of_each_text() -> None:
    logits, tokens, is_response = language_batch()
    found = language_loss(logits, tokens, is_response)
    torch.testing.assert_close(found[0], cross_entropy(logits[0, 1:6], tokens[0, 2:]))
    torch.testing.assert_close(found[1], cross_entropy(logits[1, 4:5], tokens[1, 5:6]))
    assert found[2] == 0  # nothing but a prompt and padding


def test_language_loss_teaches_the_places_before_response_tokens_alone() -> None:
    logits, tokens, is_response = language_batch()
    language_loss(logits, tokens, is_response).sum().backward()
    assert torch.equal(logits.grad.abs().sum(dim=2)[:, :-1] > 0, is_response[:, 1:])
    assert logits.grad[:, -1].abs().sum() == 0
    nothing = language_loss(logits, tokens, torch.zeros_like(is_response))
    assert nothing.tolist() == [0, 0, 0]


def test_language_loss_is_float32_whatever_the_model_runs_in() -> None:
    logits, tokens, is_response = language_batch()
    found = language_loss(logits.bfloat16(), tokens, is_response)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, language_loss(logits.bfloat16().float(), tokens, is_response))


def test_language_loss_is_that_of_a_causal_model_of_transformers() -> None:
    """Which shifts the labels itself, leaves out -100, and averages over a text's tokens."""
    _, tokens, is_response = language_batch()
    config = LlamaConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        initializer_range=1.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    theirs = model(tokens[:1], labels=tokens[:1].masked_fill(~is_response[:1], -100))
    torch.testing.assert_close(language_loss(theirs.logits, tokens[:1], is_response[:1])[0], theirs.loss)
