"""The one training loop: a sequence classifier with one scalar output learns which response of each pair is preferred.

Raw and curated models go through it with the same number of pair presentations. The loss is a sum of named terms of
losses.py: the pairwise term with soft label, margin and weight, and the contrastive term where asked for.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from curate.errors import CurateError
from curate.options import TrainOptions
from curate.run import Progress, no_progress
from rm_ensemble.batches import Ints, Sequences
from rm_ensemble.classifier import rewards_and_states, seeded, token_batch
from rm_ensemble.losses import preference_loss, simcse

Floats = NDArray[np.float32]

WARM_UP_SHARE = 0.1  # of the steps: linear warm-up, then linear decay to zero
CLIP_NORM = 1.0
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.95)  # S2 settings
DROPOUT = (
    0.05  # S2: the two views of the contrastive term are two dropout passes; without the term dropout is off, as in TRL
)
BUCKET = 50  # batches are cut from windows of this many batches sorted by length


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs as the loop reads them, in one row order: where their token sequences are, and the terms of the loss."""

    pair_id: list[str]
    sequences: Sequences
    rows: Ints  # (pairs, 2) the chosen and the rejected text in `sequences`
    label_prob: Floats  # (pairs,)
    margin: Floats  # (pairs,)
    weight: Floats  # (pairs,)


def train(
    model: PreTrainedModel,
    pairs: TrainingPairs,
    n_presentations: int,
    options: TrainOptions,
    *,
    autocast: torch.dtype = torch.float32,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Train `model` in place on `n_presentations` pairs; returns `n_steps`, `first_loss` and `last_loss` (nats).

    Pairs are presented in whole shuffled passes, the last one cut short. `autocast` is the type that matrix products
    run in; weights, head, rewards and losses are float32 throughout. The two losses are means over the first and the
    last tenth of the steps. A loss that is not finite is refused with a CurateError naming the batch.
    """
    lengths = pairs.sequences.lengths[pairs.rows].max(axis=1)
    batches = list(presentations(lengths, n_presentations, options.batch_size, np.random.default_rng(options.seed)))
    peak = options.learning_rate or width_learning_rate(model.config.get_text_config().hidden_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=BETAS, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, len(batches)))
    is_contrastive = options.contrastive == "simcse"
    losses: list[float] = []
    with seeded(options.seed), _training(model, DROPOUT if is_contrastive else 0.0):
        for batch in batches:
            tokens, mask = token_batch(pairs.sequences, pairs.rows[batch].T.reshape(-1), model)
            terms = [
                torch.from_numpy(c[batch]).to(model.device) for c in (pairs.margin, pairs.label_prob, pairs.weight)
            ]
            views = [rewards_and_states(model, tokens, mask, autocast) for _ in range(1 + is_contrastive)]
            loss = torch.stack([_batch_loss(rewards, *terms) for rewards, _ in views]).mean()
            if is_contrastive:  # S2 eq. 7-10 over H = {f_c, f_r}
                loss = loss + options.contrastive_weight * simcse(views[0][1], views[1][1]).mean()
            if not torch.isfinite(loss):
                raise _not_finite(loss.item(), len(losses), [pairs.pair_id[row] for row in batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress("train", len(losses), len(batches))
    tenth = max(1, len(losses) // 10)
    first, last = float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))
    return {"n_steps": len(losses), "first_loss": first, "last_loss": last}


def presentations(
    lengths: Ints, n_presentations: int, batch_size: int, generator: np.random.Generator
) -> Iterator[Ints]:
    """Batches of row numbers: shuffled passes over all rows, similar lengths together, `n_presentations` rows in all.

    >>> batches = list(presentations(np.array([5, 9, 5]), 4, 2, np.random.default_rng(0)))
    >>> sorted(np.concatenate(batches[:2]).tolist()), len(batches[2])
    ([0, 1, 2], 1)
    """
    while n_presentations > 0:
        order = generator.permutation(lengths.size)[:n_presentations]
        n_presentations -= order.size
        for start in range(0, order.size, BUCKET * batch_size):
            window = order[start : start + BUCKET * batch_size]
            window = window[np.argsort(-lengths[window], kind="stable")]
            batches = [window[first : first + batch_size] for first in range(0, window.size, batch_size)]
            yield from (batches[turn] for turn in generator.permutation(len(batches)))


def width_learning_rate(hidden_size: int) -> float:
    """A peak learning rate that suits the size of the model: 3e-4 was best of 2e-5, 1e-4 and 3e-4 for minilm.

    The exponent meets the 5e-6 to 1e-5 usual for 7B models (S2: 5e-6 for Llama-2-7B).

    >>> [f"{width_learning_rate(size):.1e}" for size in (384, 768, 4096)]
    ['3.0e-04', '1.1e-04', '8.6e-06']
    """
    return 3e-4 * math.pow(384 / hidden_size, 1.5)


def learning_rate_share(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then linear decay towards zero.

    >>> [round(learning_rate_share(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.06]
    """
    n_warm_up = math.ceil(n_steps * WARM_UP_SHARE)
    return min((step + 1) / n_warm_up, (n_steps - step) / max(1, n_steps - n_warm_up))


def _batch_loss(rewards: Tensor, margin: Tensor, label_prob: Tensor, weight: Tensor) -> Tensor:
    """Mean weighted loss of a batch whose rewards are those of all chosen, then all rejected responses."""
    chosen, rejected = rewards.chunk(2)
    return (weight * preference_loss(chosen, rejected, margin, label_prob)).mean()


def _not_finite(loss: float, step: int, pair_ids: list[str]) -> CurateError:
    return CurateError(
        f"training stopped at step {step}: the loss is {loss} on the batch of pairs {', '.join(pair_ids)}; "
        "try --dtype float32 or a smaller --learning-rate"
    )


@contextmanager
def _training(model: PreTrainedModel, dropout: float) -> Iterator[None]:
    """The model in training mode with one dropout rate, put back to its own afterwards and left in evaluation mode."""
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    own = [layer.p for layer in layers]
    for layer in layers:
        layer.p = dropout
    model.train()
    try:
        yield
    finally:
        model.train(False)
        for layer, rate in zip(layers, own, strict=True):
            layer.p = rate
