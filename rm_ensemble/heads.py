"""Reward heads on frozen features: all members and folds are columns of the same matrices, trained together.

A linear head is a penalised Bradley-Terry fit; its penalty is chosen per model by cross-validation within that model's own
training pairs. A two-layer head is trained by AdamW with dropout and stopped per model at its lowest loss on a part of
its training pairs.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.errors import CurateError
from curate.run import Progress, no_progress
from rm_ensemble.batches import Ints
from rm_ensemble.contrastive import simcse
from rm_ensemble.losses import preference_loss

Floats = NDArray[np.float32]

# On the mean loss; fitted from the strongest on, each from the last one's weights.
PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)
DEFAULT_PENALTY = 1  # where a model has no validation pairs
STEPS = 40  # fixed, so that a pair's label cannot change how far the models that never see it are run
TEXTS_AT_ONCE = 65_536


@dataclass(frozen=True)
class HeadOptions:
    """What a head is and how a two-layer one is trained."""

    hidden: int = field(default=0, metadata={"help": "hidden units of a two-layer head; 0 is a linear head"})
    contrastive: str = field(default="none", metadata={"help": "none, or simcse on the hidden layer (two-layer heads)"})
    epochs: int = 30
    learning_rate: float = 2e-3
    weight_decay: float = 0.03
    batch_pairs: int = 512
    dropout: float = 0.1
    contrastive_weight: float = 0.1  # S2 uses 1 with a whole language model; a small layer is swamped by it


@dataclass(frozen=True)
class PairTargets:
    """What the loss of each pair is: `index` (pairs, 2) chosen and rejected text, `label_prob` and `margin` (pairs,)."""

    index: Ints
    label_prob: Floats
    margin: Floats


@dataclass(frozen=True)
class PairWeights:
    """`weight` (pairs, models) float32: how much each pair counts for a model; 0 = the model never sees it.

    `part` (pairs, models) deals a model's pairs into parts 0, 1, ..., for its choices: each part is judged by a fit to the
    others (linear), or part 0 by a fit to the rest (two-layer).
    """

    weight: Floats
    part: NDArray[np.int8]


@dataclass(frozen=True)
class Heads:
    """Trained heads: `linear` (dims, models), or `first` (models, dims, hidden), `bias` and `second` (models, hidden)."""

    arrays: dict[str, Floats]
    settings: list[Any]  # per model: the penalty or the number of epochs that validation chose

    def rewards(self, inputs: Floats) -> Floats:
        """Raw rewards (texts, models) of head inputs (texts, dims), float32."""
        parts = [self._rewards(torch.from_numpy(part)) for part in _slices(inputs)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)

    def _rewards(self, inputs: Tensor) -> Tensor:
        weights = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        if "linear" in weights:
            return inputs @ weights["linear"]
        return two_layer_rewards(two_layer_states(inputs, weights), weights)


def _slices(inputs: Floats) -> list[Floats]:
    return [inputs[start : start + TEXTS_AT_ONCE] for start in range(0, max(len(inputs), 1), TEXTS_AT_ONCE)]


def train_heads(
    inputs: Floats,
    targets: PairTargets,
    weights: PairWeights,
    options: HeadOptions = HeadOptions(),
    seeds: tuple[int, ...] = (0,),
    progress: Progress = no_progress,
) -> Heads:
    """All models at once, one per column of `weights` and per seed, on head inputs (texts, dims).

    The same arguments on the same machine give the same bits. A contrastive term needs a hidden layer (CurateError).
    """
    if options.contrastive != "none" and not options.hidden:
        raise CurateError(
            f"--contrastive {options.contrastive} needs a representation that training can move: add --hidden 64, "
            "or use --train full"
        )
    if options.hidden:
        return _train_two_layer(inputs, targets, weights, options, seeds, progress)
    return _train_linear(inputs, targets, weights, progress)


def _train_linear(inputs: Floats, targets: PairTargets, weights: PairWeights, progress: Progress) -> Heads:
    """Every model on all its pairs, at the penalty that cross-validation over its parts found best."""
    difference = torch.from_numpy(inputs[targets.index[:, 0]] - inputs[targets.index[:, 1]])  # (pairs, dims)
    fit = LinearFit(difference, targets)
    best = _best_penalties(fit, weights, progress)
    path = list(fit.path(torch.from_numpy(weights.weight)))
    final = torch.stack([path[step][:, model] for model, step in enumerate(best)], dim=1)
    progress("train heads", len(PENALTIES) + 1, len(PENALTIES) + 1)
    return Heads({"linear": final.numpy()}, [PENALTIES[step] for step in best])


def _best_penalties(fit: "LinearFit", weights: PairWeights, progress: Progress) -> list[int]:
    """For each model the place in PENALTIES with the lowest loss on parts that its fit has not seen."""
    weight, part = torch.from_numpy(weights.weight), torch.from_numpy(weights.part)
    names = range(int(part.max()) + 1)
    rests, unseen = (torch.cat([weight * test(part, n) for n in names], dim=1) for test in (torch.ne, torch.eq))
    losses = []
    for done, heads in enumerate(fit.path(rests)):  # (dims, parts x models)
        losses.append(fit.loss_sum(heads, unseen).view(len(names), -1).sum(dim=0))
        progress("train heads", done + 1, len(PENALTIES) + 1)
    can_choose = (rests.sum(dim=0) > 0).view(len(names), -1).all(dim=0)
    best: list[int] = torch.where(can_choose, torch.stack(losses).argmin(dim=0), torch.tensor(DEFAULT_PENALTY)).tolist()
    return best


class LinearFit:
    """Newton-like steps for all models with one matrix that bounds every Hessian, so that one factorisation serves all.

    The logistic curvature is at most 1/4 (Boehning and Lindsay 1988), and a model's Hessian is a sum over pairs with its
    own shares: at most a quarter of the second moment of all differences, times the largest share.
    """

    def __init__(self, difference: Tensor, targets: PairTargets) -> None:
        self.difference = difference
        self.label_prob = torch.from_numpy(targets.label_prob)[:, None]
        self.margin = torch.from_numpy(targets.margin)[:, None]
        self.quarter_moment = difference.T @ difference / 4  # a sum over pairs

    def path(self, weight: Tensor) -> Iterator[Tensor]:
        """(dims, models) minimum of weighted mean loss + penalty/2 |head|^2 at each of PENALTIES; weights (pairs, models)."""
        share = weight / weight.sum(dim=0).clamp(min=1e-9)
        bound = self.quarter_moment * share.max()
        head = torch.zeros(len(bound), weight.shape[1])
        for penalty in PENALTIES:
            head = self._minimum(share, penalty, torch.linalg.cholesky(bound + penalty * torch.eye(len(bound))), head)
            yield head

    def _minimum(self, share: Tensor, penalty: float, factor: Tensor, start: Tensor) -> Tensor:
        head, ahead, momentum = start, start, 1.0
        for _ in range(STEPS):
            error = torch.sigmoid(self.difference @ ahead - self.margin) - self.label_prob
            step = torch.cholesky_solve(self.difference.T @ (error * share) + penalty * ahead, factor)
            updated, grown = ahead - step, (1 + (1 + 4 * momentum**2) ** 0.5) / 2  # Nesterov's momentum
            ahead = updated + (momentum - 1) / grown * (updated - head)
            head, momentum = updated, grown
        return head

    def loss_sum(self, head: Tensor, weight: Tensor) -> Tensor:
        """(models,) weighted sum of losses in nats."""
        reward = self.difference @ head
        loss = preference_loss(reward, torch.zeros_like(reward), self.margin, self.label_prob)
        return (loss * weight).sum(dim=0)


def two_layer_states(inputs: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The hidden layer of each model, (models, texts, hidden)."""
    return torch.relu(torch.einsum("td,mdh->mth", inputs, weights["first"]) + weights["bias"][:, None])


def two_layer_rewards(states: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """(texts, models) rewards of hidden layers (models, texts, hidden)."""
    return torch.einsum("mth,mh->tm", states, weights["second"])


def _new_two_layer(dims: int, hidden: int, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """Each model's weights from its own seed, so that adding a model does not move another."""
    firsts, seconds = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        firsts.append(
            torch.randn(dims, hidden, generator=generator) * 0.5
        )  # inputs have a norm near 1, not unit variance
        seconds.append(torch.randn(hidden, generator=generator) * hidden**-0.5)
    return {"first": torch.stack(firsts), "bias": torch.zeros(len(seeds), hidden), "second": torch.stack(seconds)}


def _train_two_layer(
    inputs: Floats,
    targets: PairTargets,
    weights: PairWeights,
    options: HeadOptions,
    seeds: tuple[int, ...],
    progress: Progress,
) -> Heads:
    texts = torch.from_numpy(inputs)
    index = torch.from_numpy(targets.index)
    label_prob, margin = torch.from_numpy(targets.label_prob)[:, None], torch.from_numpy(targets.margin)[:, None]
    is_valid = torch.from_numpy(weights.part == 0)
    train, valid = torch.from_numpy(weights.weight) * ~is_valid, torch.from_numpy(weights.weight) * is_valid
    parameters = {
        name: p.requires_grad_() for name, p in _new_two_layer(inputs.shape[1], options.hidden, seeds).items()
    }
    optimizer = torch.optim.AdamW(
        parameters.values(), options.learning_rate, (0.9, 0.99), weight_decay=options.weight_decay
    )
    generator = torch.Generator().manual_seed(seeds[0])
    best = _Best(parameters, len(seeds))
    used = torch.nonzero(train.sum(dim=1) > 0).ravel()
    for epoch in range(options.epochs):
        progress("train heads", epoch, options.epochs)
        order = used[torch.randperm(len(used), generator=generator)]
        for rows in torch.split(order, options.batch_pairs):
            batch = (texts[index[rows].T.ravel()], label_prob[rows], margin[rows], train[rows])
            loss = _two_layer_loss(batch, parameters, options, generator)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            rewards = two_layer_rewards(two_layer_states(texts, parameters), parameters)
            losses = preference_loss(rewards[index[:, 0]], rewards[index[:, 1]], margin, label_prob)
            best.keep((losses * valid).sum(dim=0) / valid.sum(dim=0).clamp(min=1e-9), epoch + 1)
    progress("train heads", options.epochs, options.epochs)
    return Heads({name: p.numpy() for name, p in best.parameters.items()}, best.epochs.tolist())


def _two_layer_loss(
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    parameters: dict[str, Tensor],
    options: HeadOptions,
    generator: torch.Generator,
) -> Tensor:
    """Sum over models of their mean loss over a batch; with a contrastive term, over two dropout views (S2).

    The batch: inputs (all chosen, then all rejected), label_prob, margin (pairs, 1), weight (pairs, models).
    """
    inputs, label_prob, margin, weight = batch
    states = two_layer_states(inputs, parameters)  # (models, 2 x pairs, hidden)
    n_views = 1 if options.contrastive == "none" else 2
    views = [_dropout(states, options.dropout, generator) for _ in range(n_views)]
    share = weight / weight.sum(dim=0).clamp(min=1e-9)
    total = torch.zeros(())
    for view in views:
        chosen, rejected = two_layer_rewards(view, parameters).chunk(2)
        total = total + (preference_loss(chosen, rejected, margin, label_prob) * share).sum() / n_views
    if options.contrastive == "simcse":
        total = total + options.contrastive_weight * simcse(views[0], views[1]).mean(dim=1).sum()
    return total


def _dropout(states: Tensor, share: float, generator: torch.Generator) -> Tensor:
    kept = torch.rand(states.shape, generator=generator) >= share
    return states * kept / (1 - share)


class _Best:
    """Each model's parameters at its lowest validation loss."""

    def __init__(self, parameters: dict[str, Tensor], n_models: int) -> None:
        self.current = parameters
        self.parameters = {name: copy.deepcopy(parameter.detach()) for name, parameter in parameters.items()}
        self.losses = torch.full((n_models,), torch.inf)
        self.epochs = torch.zeros(n_models, dtype=torch.int64)

    def keep(self, losses: Tensor, epoch: int) -> None:
        """Copy the models that improved (all of them where there is no validation pair: their loss is always 0)."""
        better = losses < self.losses
        better |= losses == 0
        self.losses = torch.where(better, losses, self.losses)
        self.epochs[better] = epoch
        for name, parameter in self.current.items():
            self.parameters[name][better] = parameter.detach()[better]
