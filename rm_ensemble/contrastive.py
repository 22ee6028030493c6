"""The contrastive terms of reward-model training: SimCSE and SwAV over two dropout views of the same vectors.

The vectors (the set H of S2) are the states {f_c, f_r} that the reward head reads, or their `state_differences`. Each term is a
free function that returns one value per vector, in nats; the caller weighs and reduces. Everything is float32.
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

SINKHORN_ITERATIONS = 3  # SwAV, section 3.1
SINKHORN_EPSILON = 0.05  # SwAV's main_swav.py


def state_differences(states: Tensor) -> Tensor:
    """The set H = {f_c - f_r, f_r - f_c} of S2, made of H = {f_c, f_r}.

    `states` is (..., 2 x pairs, dims), all chosen, then all rejected; so is the result.

    >>> state_differences(torch.tensor([[5.0], [7.0], [1.0], [9.0]])).ravel().tolist()
    [4.0, -2.0, -4.0, 2.0]
    """
    chosen, rejected = torch.unflatten(states, -2, (2, -1)).unbind(-3)  # an odd number is refused
    return torch.cat([chosen - rejected, rejected - chosen], dim=-2)


def simcse(view_a: Tensor, view_b: Tensor, temperature: float = 0.05) -> Tensor:
    """SimCSE contrast of each vector's two dropout views against all others (S2 eq. 7; temperature from SimCSE).

    Both views are (..., vectors, dims), the result (..., vectors): the cross-entropy of finding row i of `view_b` from row i of
    `view_a` by cosine similarity. Identical views of n vectors that are all alike cost ln n.

    >>> alike = torch.ones(4, 3)
    >>> [round(x, 4) for x in simcse(alike, alike).tolist()]   # ln 4
    [1.3863, 1.3863, 1.3863, 1.3863]
    """
    similarity = cosine(view_a, view_b) / temperature  # (..., vectors, vectors)
    return torch.logsumexp(similarity, dim=-1) - torch.diagonal(similarity, dim1=-2, dim2=-1)


def swav(
    view_a: Tensor, view_b: Tensor, prototypes: Tensor, queue: Tensor | None = None, temperature: float = 0.1
) -> Tensor:
    """SwAV: each view of a vector predicts the other view's code over the prototypes (2006.09882, eq. 1 and 2).

    Both views are (..., vectors, dims), `prototypes` (..., prototypes, dims), the result (..., vectors): the sum of the two
    cross-entropies (SwAV's own program halves it). Only directions count, of prototypes too. `queue` is
    (..., earlier vectors, dims), which only share in the making of the codes: give it where there are fewer vectors than
    prototypes, or each vector must go to several. No gradient goes through codes or queue.

    >>> alike = torch.ones(4, 3)
    >>> [round(x, 4) for x in swav(alike, alike, prototypes=torch.ones(5, 3)).tolist()]   # 2 ln 5
    [3.2189, 3.2189, 3.2189, 3.2189]
    """
    earlier = view_a[..., :0, :] if queue is None else queue

    def codes(view: Tensor) -> Tensor:
        similarity = cosine(torch.cat([earlier, view], dim=-2), prototypes)
        return sinkhorn_codes(similarity.detach())[..., earlier.shape[-2] :, :]

    def prediction(view: Tensor) -> Tensor:
        return log_softmax(cosine(view, prototypes) / temperature, dim=-1)

    swapped = codes(view_b) * prediction(view_a) + codes(view_a) * prediction(view_b)
    return -swapped.sum(dim=-1)


def sinkhorn_codes(
    similarity: Tensor, epsilon: float = SINKHORN_EPSILON, iterations: int = SINKHORN_ITERATIONS
) -> Tensor:
    """The share of each vector that goes to each prototype, all prototypes taking nearly the same total (SwAV, eq. 3-5).

    `similarity` and the result are (..., vectors, prototypes); each row of the result sums to 1.

    >>> sinkhorn_codes(torch.tensor([[1.0, 0.9], [1.0, 0.0]])).round().tolist()   # both like the first, one can have it
    [[0.0, 1.0], [1.0, 0.0]]
    """
    log_codes = similarity / epsilon
    for _ in range(iterations):
        log_codes = log_softmax(log_codes, dim=-2)  # one unit for each prototype: in log space nothing overflows
        log_codes = log_softmax(log_codes, dim=-1)  # one unit from each vector
    return log_codes.exp()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of every row of `a` (..., n, dims) with every row of `b` (..., m, dims): (..., n, m), in float32.

    >>> cosine(torch.tensor([[3.0, 0.0]]), torch.tensor([[7.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.0, -1.0]]
    """
    return normalize(a.float(), dim=-1) @ normalize(b.float(), dim=-1).transpose(-1, -2)
