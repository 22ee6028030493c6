"""The loss terms of reward-model training, each a free function of tensors that returns one value per row.

Values are in nats, or in squared reward where a docstring says so. The caller weighs and reduces. Everything is float32
whatever the model runs in. The contrastive terms are in contrastive.py.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid


def preference_loss(reward_chosen: Tensor, reward_rejected: Tensor, margin: Tensor, label_prob: Tensor) -> Tensor:
    """Bradley-Terry loss of each pair in nats (S2 eq. 5 per pair and eq. 6); arguments broadcast to the result's shape.

    `margin` is the lead the chosen reward must have, inside the log-sigmoid (S2 eq. 6 is misprinted); `label_prob` is
    the chance that the label is right (1 trusts it; 0 with margin 0 is the same as swapping the two rewards).

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> round(preference_loss(zero, zero, margin=zero, label_prob=one).item(), 4)   # ln 2
    0.6931
    """
    lead = reward_chosen - reward_rejected - margin
    return -label_prob * logsigmoid(lead) - (1 - label_prob) * logsigmoid(-lead)


def forward_corrected_loss(
    reward_chosen: Tensor, reward_rejected: Tensor, margin: Tensor, label_prob: Tensor
) -> Tensor:
    """Minus the log of the chance of seeing each label, right or flipped, in nats (FA-DPO, 2512.00709; METHODS.md 3).

    Arguments as in `preference_loss`, and the same loss where `label_prob` is 0 or 1. In between, pairs that the model
    finds very wrong lose their gradient: they cost at most -ln(1 - label_prob). At 0.5 no pair has any.

    >>> zero, lead = torch.zeros(1), torch.tensor([-100.0])
    >>> round(forward_corrected_loss(lead, zero, margin=zero, label_prob=torch.tensor([0.8])).item(), 4)   # -ln 0.2
    1.6094
    """
    lead = reward_chosen - reward_rejected - margin
    is_right, is_flipped = torch.log(label_prob), torch.log1p(-label_prob)
    return -torch.logaddexp(is_right + logsigmoid(lead), is_flipped + logsigmoid(-lead))


def pointwise_loss(reward: Tensor, rating: Tensor) -> Tensor:
    """Squared distance of each text's reward from its rating, in squared units of the rating (METHODS.md 4).

    >>> pointwise_loss(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 3.0])).tolist()
    [9.0, 0.0]
    """
    return (reward - rating) ** 2


def mean_per_list(pair_loss: Tensor, list_of_pair: Tensor, n_lists: int) -> Tensor:
    """The listwise form: the mean loss over the pairs of each list, in nats (InstructGPT, 2203.02155, eq. 1).

    `pair_loss` and `list_of_pair` are (pairs,), the result is (n_lists,). The pairs of a list are those that its ranks
    order, K(K-1)/2 of K responses without ties; a list without pairs costs 0.

    >>> mean_per_list(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), n_lists=3).tolist()
    [2.0, 0.0, 5.0]
    """
    n_pairs = torch.bincount(list_of_pair, minlength=n_lists).clamp(min=1)
    return torch.zeros(n_lists, device=pair_loss.device).index_add(0, list_of_pair, pair_loss) / n_pairs


def plackett_luce_loss(reward: Tensor, rank: Tensor) -> Tensor:
    """Minus the log-probability that a list's responses are picked in the order of their ranks, in nats (Plackett 1975).

    Both arguments are (..., responses), the result is (...). Rank 1 is the best; NaN is a place that a shorter list does
    not fill, whose reward may be any finite number. Each response is picked from itself and all that rank strictly below
    it, so that nothing orders tied responses, or pulls them together; without ties this is METHODS.md 4's sum.

    >>> reward = torch.zeros(2, 3)
    >>> rank = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 2.0]])
    >>> [round(x, 4) for x in plackett_luce_loss(reward, rank).tolist()]   # ln 3 + ln 2, ln 2 + ln 2
    [1.7918, 1.3863]
    """
    is_below = rank[..., :, None] < rank[..., None, :]  # (..., responses, responses), never true of a NaN
    is_choice = is_below | torch.eye(rank.shape[-1], dtype=torch.bool, device=rank.device)
    choices = torch.where(is_choice, reward[..., None, :], -torch.inf)
    return (torch.logsumexp(choices, dim=-1) - reward).sum(dim=-1)


def language_loss(logits: Tensor, tokens: Tensor, is_response: Tensor) -> Tensor:
    """Mean cross-entropy of each text's response tokens given all before them, in nats per token (METHODS.md 4).

    `logits` is (texts, tokens, vocabulary) as a causal model returns them: place t predicts token t + 1. `tokens` and
    `is_response` are (texts, tokens). A text's first token is not predicted; a text without response tokens costs 0.

    >>> tokens = torch.tensor([[5, 1, 2]])
    >>> language_loss(torch.zeros(1, 3, 8), tokens, tokens < 5).div(torch.tensor(8).log()).tolist()   # ln 8 a token
    [1.0]
    """
    is_counted = is_response[:, 1:]
    # Only the counted rows become float32: over a large vocabulary the logits are the largest tensor of a step.
    loss = cross_entropy(logits[:, :-1][is_counted].float(), tokens[:, 1:][is_counted], reduction="none")
    by_text = torch.zeros_like(is_counted, dtype=torch.float32).masked_scatter(is_counted, loss)
    return by_text.sum(dim=1) / is_counted.sum(dim=1).clamp(min=1)


def centring_loss(reward_chosen: Tensor, reward_rejected: Tensor) -> Tensor:
    """Squared sum of each pair's two rewards, in squared reward: it holds their mean near 0 (2312.09244; as in TRL).

    >>> centring_loss(torch.tensor([2.0, 2.0]), torch.tensor([1.0, -2.0])).tolist()
    [9.0, 0.0]
    """
    return (reward_chosen + reward_rejected) ** 2
