"""The loss terms of reward-model training, each a free function of tensors that returns one value per row, in nats.

The caller weighs and reduces. Everything is float32 whatever the model runs in.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


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


def simcse(view_a: Tensor, view_b: Tensor, temperature: float = 0.05) -> Tensor:
    """SimCSE contrast of each vector's two dropout views against all others (S2 eq. 7; temperature from SimCSE).

    Both views are (..., vectors, dims), the result (..., vectors): the cross-entropy of finding row i of `view_b` from row i of
    `view_a` by cosine similarity. Identical views of n vectors that are all alike cost ln n.

    >>> alike = torch.ones(4, 3)
    >>> [round(x, 4) for x in simcse(alike, alike).tolist()]   # ln 4
    [1.3863, 1.3863, 1.3863, 1.3863]
    """
    unit_a = torch.nn.functional.normalize(view_a.float(), dim=-1)
    unit_b = torch.nn.functional.normalize(view_b.float(), dim=-1)
    similarity = unit_a @ unit_b.transpose(-1, -2) / temperature  # (..., vectors, vectors)
    return torch.logsumexp(similarity, dim=-1) - torch.diagonal(similarity, dim1=-2, dim2=-1)
