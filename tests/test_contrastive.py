import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cross_entropy

from rm_ensemble.contrastive import cosine, simcse, sinkhorn_codes, state_differences, swav

shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 1000)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def similarities(vectors: int, prototypes: int, seed: int = 0) -> Tensor:
    """Cosines of random directions."""
    return cosine(normal(vectors, 4, seed=seed), normal(prototypes, 4, seed=seed + 1))


def test_simcse_of_orthogonal_vectors_and_of_equal_ones() -> None:
    """Two orthogonal vectors at temperature 1: ln(1 + 1/e). All alike: ln n."""
    assert simcse(torch.eye(2), torch.eye(2), temperature=1.0).tolist() == pytest.approx([math.log(1 + 1 / math.e)] * 2)
    assert simcse(torch.ones(5, 3), torch.ones(5, 3)).tolist() == pytest.approx([math.log(5)] * 5)


def test_simcse_is_the_cross_entropy_of_finding_the_other_view() -> None:
    a, b = normal(2, 6, 4)
    expected = [
        [torch.nn.functional.cosine_similarity(a[row], b[column], dim=0) / 0.05 for column in range(6)]
        for row in range(6)
    ]
    torch.testing.assert_close(simcse(a, b), cross_entropy(torch.tensor(expected), torch.arange(6), reduction="none"))


def test_simcse_reads_directions_only_and_has_batch_axes() -> None:
    views = normal(2, 3, 6, 4)  # (views, models, vectors, dims)
    together = simcse(views[0], views[1])
    assert together.shape == (3, 6)
    torch.testing.assert_close(simcse(7 * views[0, 1], views[1, 1]), together[1])


def test_simcse_on_the_differences_of_one_pair() -> None:
    """The two differences are opposite, of cosine -1: at temperature 1 each costs ln(1 + 1/e^2)."""
    view = state_differences(normal(2, 4))
    assert simcse(view, view, temperature=1.0).tolist() == pytest.approx([math.log(1 + math.exp(-2))] * 2)


def test_state_differences_of_each_pair_both_ways_round() -> None:
    states = normal(3, 10, 4)  # (models, 2 x pairs, dims)
    found = state_differences(states)
    for pair in range(5):
        torch.testing.assert_close(found[:, pair], states[:, pair] - states[:, 5 + pair])
        torch.testing.assert_close(found[:, 5 + pair], states[:, 5 + pair] - states[:, pair])


def test_state_differences_refuse_a_state_without_its_other_response() -> None:
    with pytest.raises(RuntimeError, match="multiply up to the size"):
        state_differences(normal(3, 4))


@given(shape=shapes, seed=seeds)
def test_codes_are_three_rounds_of_scaling_prototypes_then_vectors(shape, seed) -> None:
    """The matrix that SwAV scales: exp(similarity / 0.05), first to equal prototypes, last to equal vectors."""
    similarity = similarities(*shape, seed)
    expected = np.exp(similarity.double().numpy() / 0.05)
    for _ in range(3):
        expected /= expected.sum(axis=0, keepdims=True)
        expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(sinkhorn_codes(similarity).numpy(), expected, rtol=1e-3, atol=1e-6)


@given(shape=shapes, seed=seeds)
def test_codes_share_out_each_vector_and_in_the_end_the_prototypes_evenly(shape, seed) -> None:
    vectors, prototypes = shape
    similarity = similarities(vectors, prototypes, seed)
    torch.testing.assert_close(sinkhorn_codes(similarity).sum(dim=1), torch.ones(vectors))
    in_the_end = sinkhorn_codes(similarity, epsilon=0.5, iterations=200)
    torch.testing.assert_close(
        in_the_end.sum(dim=0), torch.full((prototypes,), vectors / prototypes), rtol=0, atol=1e-3
    )


def test_codes_of_a_small_epsilon_are_the_best_assignment() -> None:
    similarity = similarities(6, 6)
    codes = sinkhorn_codes(similarity, epsilon=0.002, iterations=2000)
    assert codes.argmax(dim=1).tolist() == linear_sum_assignment(similarity.numpy(), maximize=True)[1].tolist()
    assert codes.max(dim=1).values.min() > 0.9
    assert torch.isfinite(sinkhorn_codes(similarity, epsilon=1e-3)).all()  # exp(1 / 1e-3) is not


def test_codes_have_batch_axes() -> None:
    stacked = torch.stack([similarities(5, 3), similarities(5, 3, seed=9)])
    torch.testing.assert_close(sinkhorn_codes(stacked)[1], sinkhorn_codes(stacked[1]))


def test_swav_of_vectors_that_lie_on_their_prototypes() -> None:
    """Each code is its own prototype (up to e^-20): twice the cross-entropy ln(1 + 1/e) at temperature 1."""
    found = swav(torch.eye(2), torch.eye(2), prototypes=torch.eye(2), temperature=1.0)
    assert found.tolist() == pytest.approx([2 * math.log(1 + 1 / math.e)] * 2)


def test_swav_is_the_cross_entropy_of_each_view_with_the_code_of_the_other() -> None:
    a, b, prototypes = normal(6, 4), normal(6, 4, seed=1), normal(3, 4, seed=2)
    logits, codes = ([f(cosine(view, prototypes)) for view in (a, b)] for f in (lambda x: x / 0.1, sinkhorn_codes))
    expected = cross_entropy(logits[0], codes[1], reduction="none") + cross_entropy(
        logits[1], codes[0], reduction="none"
    )
    torch.testing.assert_close(swav(a, b, prototypes), expected)
    torch.testing.assert_close(swav(b, a, prototypes), expected)


def test_swav_has_no_gradient_through_codes_and_queue() -> None:
    """Its gradients are those of the cross-entropy with codes that are plain numbers."""
    a, b, prototypes, queue = (normal(5, 4, seed=seed).requires_grad_() for seed in range(4))
    found = torch.autograd.grad(swav(a, b, prototypes, queue).sum(), [a, b, prototypes, queue], allow_unused=True)
    logits = [cosine(view, prototypes) / 0.1 for view in (a, b)]
    codes = [sinkhorn_codes(cosine(torch.cat([queue, view]), prototypes)).detach()[5:] for view in (a, b)]
    loss = cross_entropy(logits[0], codes[1], reduction="sum") + cross_entropy(logits[1], codes[0], reduction="sum")
    for ours, theirs in zip(found, torch.autograd.grad(loss, [a, b, prototypes]), strict=False):
        torch.testing.assert_close(ours, theirs)
    assert found[3] is None


def test_a_queue_gives_a_lone_vector_a_code() -> None:
    """Alone it is shared out to all prototypes; beside an earlier vector on the second prototype it gets the first."""
    lone, prototypes = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    costs = [-math.log(math.exp(x) / (math.e + 1)) for x in (1, 0)]  # of the first prototype and of the second
    alone = swav(lone, lone, prototypes, temperature=1.0)
    queued = swav(lone, lone, prototypes, queue=torch.tensor([[0.0, 1.0]]), temperature=1.0)
    assert alone.tolist() == pytest.approx([sum(costs)])
    assert queued.tolist() == pytest.approx([2 * costs[0]])


def test_a_queue_takes_part_in_the_codes_alone() -> None:
    """A batch that holds the queued vectors costs its last vectors the same; an empty queue is none."""
    a, b, prototypes, queue = normal(4, 3), normal(4, 3, seed=1), normal(6, 3, seed=2), normal(5, 3, seed=3)
    whole = swav(torch.cat([queue, a]), torch.cat([queue, b]), prototypes)
    torch.testing.assert_close(swav(a, b, prototypes, queue), whole[5:])
    torch.testing.assert_close(swav(a, b, prototypes, queue[:0]), swav(a, b, prototypes))


def test_swav_reads_directions_only_and_has_batch_axes() -> None:
    views, prototypes, queue = normal(2, 3, 6, 4), normal(3, 5, 4, seed=1), normal(3, 7, 4, seed=2)
    together = swav(views[0], views[1], prototypes, queue)
    assert together.shape == (3, 6)
    alone = swav(7 * views[0, 1], 2 * views[1, 1], 3 * prototypes[1], 5 * queue[1])
    torch.testing.assert_close(alone, together[1])


def test_cosines_of_bfloat16_states_are_made_in_float32() -> None:
    a, b = normal(2, 6, 4).bfloat16()
    assert cosine(a, b).dtype == torch.float32
    assert torch.equal(cosine(a, b), cosine(a.float(), b.float()))
