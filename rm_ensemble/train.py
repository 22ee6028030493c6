"""The one training loop: a sequence classifier with one scalar output learns what pairs, ranked lists or ratings teach.

Members, raw and curated models go through it. The loss is a sum of named terms of losses.py and contrastive.py; gradients
add up over as many forward passes as memory asks for; a run that was killed goes on from its checkpoint to the same weights.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel, get_scheduler

from curate.errors import CurateError
from curate.options import TrainOptions
from curate.run import Progress, key_of, no_progress
from rm_ensemble.batches import Ints, Sequences
from rm_ensemble.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from rm_ensemble.classifier import rewards_and_states, seeded, token_batch
from rm_ensemble.contrastive import simcse, state_differences, swav
from rm_ensemble.items import Batch, Items, batch_of, micro_batches, part_of
from rm_ensemble.losses import (
    centring_loss,
    forward_corrected_loss,
    language_loss,
    mean_per_list,
    plackett_luce_loss,
    pointwise_loss,
    preference_loss,
)
from rm_ensemble.metrics_log import metrics_log

CLIP_NORM = 1.0
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.95)  # S2 settings
# S2: the two views of the contrastive term are two dropout passes; without the term dropout is off, as in TRL
DROPOUT = 0.05
ATTENTION_DROPOUT = ("attention_dropout", "dropout_p", "attn_dropout")
PROTOTYPES = {"responses": 50, "differences": 20}  # of the SwAV term, S2
BUCKET = 50  # batches are cut from windows of this many batches sorted by length
N_LOOKS, PATIENCE = 10, 3  # early stopping looks so often in a run, and stops after so many without a lower loss

LanguageHead = Callable[[Tensor], Tensor]
"""Hidden states (..., dims) to next-token logits (..., vocabulary)."""


@dataclass
class _Session:
    """What a step changes and a checkpoint holds, beside the settings of the run."""

    model: PreTrainedModel
    items: Items
    options: TrainOptions
    autocast: torch.dtype
    language_head: LanguageHead | None
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    prototypes: nn.Parameter
    queue: Tensor
    n_parts: int
    records: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training moves, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def train(
    model: PreTrainedModel,
    items: Items,
    n_presentations: int,
    options: TrainOptions,
    *,
    autocast: torch.dtype = torch.float32,
    language_head: LanguageHead | None = None,
    checkpoint: Checkpoint | None = None,
    metrics: Path | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train `model` in place on `n_presentations` items; returns `n_steps`, `first_loss`, `last_loss` (nats) and what it met.

    Items are presented in whole shuffled passes, the last one cut short, a step at a time of about `options.batch_size` pairs.
    `autocast` is the type that matrix products run in; weights, head, rewards and losses are float32 throughout. The two
    losses are means over the first and the last tenth of the steps. With `options.validation` the weights are those of the
    lowest loss on that share of the prompts, which are not trained on (`validation_loss`, `stopped_at`). `metrics` is a file
    of JSON lines, a line a step.

    Refused with a CurateError: a loss that is not finite, naming the batch, and an item that does not fit into memory.
    """
    fitted, aside = _set_aside(items, options)
    n_presentations = max(1, round(n_presentations * len(fitted) / len(items)))
    n_at_once = items_per_step(fitted, options.batch_size)
    batches = list(presentations(fitted.lengths, n_presentations, n_at_once, np.random.default_rng(options.seed)))
    peak = options.learning_rate or width_learning_rate(model.config.get_text_config().hidden_size)
    rates = [peak * share for share in schedule(options.schedule, len(batches), options.warmup)]
    with seeded(options.seed), _training(model, options):
        session = _new_session(model, fitted, options, autocast, language_head)
        if checkpoint is not None:
            _restore(session, checkpoint)
        with metrics_log(metrics, options.tensorboard, session.records) as log:
            for record in _steps(session, batches, rates, aside):
                log(record)
                progress("train", len(session.records), len(batches))
                if checkpoint is not None and checkpoint.is_due:
                    _save(session, checkpoint)
        if checkpoint is not None:
            _save(session, checkpoint)
        with torch.no_grad():
            for name, value in session.best.items():
                session.trained[name].copy_(value)
    return _facts(session, n_at_once)


def _steps(
    session: _Session, batches: list[Ints], rates: list[float], aside: Items | None
) -> Iterator[dict[str, float]]:
    """The steps that are left, one record each, until the last batch or until the validation loss falls no more."""
    look_every = max(1, len(batches) // N_LOOKS)
    for step in range(len(session.records), len(batches)):
        if _has_stopped(session.records):
            return
        for group in session.optimizer.param_groups:
            group["lr"] = rates[step]
        record = {"step": step + 1, "learning_rate": rates[step], **_step(session, batches[step])}
        if aside is not None and (step + 1) % look_every == 0:
            record["validation_loss"] = _look(session, aside)
        session.records.append(record)
        yield record


def training_key(items: Items, n_presentations: int, options: TrainOptions, identity: Mapping[str, Any]) -> str:
    """What a checkpoint is good for: the items, all options, and what `identity` says of the model and the version."""
    digest = hashlib.sha256()
    arrays = (items.sequences.ids, items.sequences.starts, items.starts, items.rows, items.pair_starts, items.place)
    for array in (*arrays, items.label_prob, items.margin, items.weight, items.target):
        digest.update(np.ascontiguousarray(array).tobytes())
    chosen = asdict(replace(options, tensorboard=""))
    return key_of({"items": digest.hexdigest(), "n": n_presentations, "options": chosen, "identity": dict(identity)})


def items_per_step(items: Items, batch_size: int) -> int:
    """How many items make a step: as many as have the texts of `batch_size` pairs, at least one."""
    return max(1, round(2 * batch_size * len(items) / len(items.rows)))


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


def schedule(name: str, n_steps: int, warmup: float) -> list[float]:
    """The share of the peak learning rate at each step, above 0 throughout: transformers' schedule of this name.

    >>> [round(share, 2) for share in schedule("linear", 5, warmup=0.4)]
    [0.5, 1.0, 0.75, 0.5, 0.25]
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    n_warmup = math.ceil(n_steps * warmup)
    whole = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer,
        num_warmup_steps=n_warmup,
        num_training_steps=n_steps + 1,
        # without it a run without warm-up would be held against 10,000 steps
        scheduler_specific_kwargs={"timescale": n_warmup or math.ceil(n_steps / 10)}
        if name == "inverse_sqrt"
        else None,
    )
    share = whole.lr_lambdas[0]
    return [float(share(step + 1)) for step in range(n_steps)]  # its step 0 has a share of 0, and would teach nothing


def _new_session(
    model: PreTrainedModel,
    items: Items,
    options: TrainOptions,
    autocast: torch.dtype,
    language_head: LanguageHead | None,
) -> _Session:
    accelerator = Accelerator(cpu=model.device.type == "cpu", gradient_accumulation_steps=1, mixed_precision="no")
    dims = model.config.get_text_config().hidden_size
    n_prototypes = PROTOTYPES[options.contrastive_on] if options.contrastive == "swav" else 0
    prototypes = nn.Parameter(torch.randn(n_prototypes, dims, device=model.device))
    learnt = [*(p for p in model.parameters() if p.requires_grad), *([prototypes] if n_prototypes else [])]
    optimizer = torch.optim.AdamW(learnt, lr=0.0, betas=BETAS, weight_decay=WEIGHT_DECAY)
    n_parts = math.ceil(options.batch_size / options.micro_batch) if options.micro_batch else 1
    queue = torch.zeros(0, dims, device=model.device)
    return _Session(model, items, options, autocast, language_head, accelerator, optimizer, prototypes, queue, n_parts)


def _step(session: _Session, numbers: Ints) -> dict[str, float]:
    """One step of the optimizer on some items: the loss and the norm of its gradient."""
    loss = _accumulate(session, numbers)
    norm = float(session.accelerator.clip_grad_norm_(session.trained.values(), CLIP_NORM))
    if not math.isfinite(loss) or not math.isfinite(norm):
        names = ", ".join(session.items.names[numbers].tolist())
        raise CurateError(
            f"training stopped at step {len(session.records) + 1}: the loss is {loss}, its gradient {norm}, on the batch of "
            f"{names}; try --dtype float32 or a smaller --learning-rate"
        )
    session.optimizer.step()
    session.optimizer.zero_grad()
    return {"loss": loss, "gradient_norm": norm}


def _accumulate(session: _Session, numbers: Ints) -> float:
    """The mean loss of some items, and its gradient, over as many forward passes as memory asks for."""
    queue = session.queue
    while True:
        try:
            total = 0.0
            for part in micro_batches(numbers, session.n_parts):
                loss = _loss(session, batch_of(session.items, part)) * (len(part) / len(numbers))
                if torch.isfinite(loss):
                    session.accelerator.backward(loss)
                total += loss.item()
            return total
        except torch.OutOfMemoryError as error:
            if session.n_parts >= len(numbers):
                raise CurateError(
                    f"{session.items.names[numbers[0]]}: out of memory even alone; give a smaller --max-tokens, "
                    "--checkpointing, or --train lora"
                ) from error
            session.n_parts *= 2
            session.queue = queue
            session.optimizer.zero_grad()
            torch.cuda.empty_cache()


def _loss(session: _Session, batch: Batch) -> Tensor:
    """The mean loss of a batch's items, all terms."""
    options, model = session.options, session.model
    tokens, mask = token_batch(session.items.sequences, batch.rows, model)
    n_views = 1 if options.contrastive == "none" else 2
    views = [rewards_and_states(model, tokens, mask, session.autocast) for _ in range(n_views)]
    if n_views == 2 and torch.equal(views[0].states, views[1].states):
        raise CurateError(
            f"--contrastive {options.contrastive}: two passes of {type(model).__name__} give the same states, it has no "
            "dropout; leave the term out, or choose another --backbone"
        )
    loss = torch.stack([_item_losses(view.rewards, batch, options).mean() for view in views]).mean()
    chosen, rejected = (torch.from_numpy(column.copy()).to(model.device) for column in batch.pairs.T)
    if options.centring:
        rewards = views[0].rewards
        loss = loss + options.centring * centring_loss(rewards[chosen], rewards[rejected]).mean()
    if options.contrastive != "none":  # S2 eq. 7-10
        of_pairs = options.contrastive_on == "differences"
        first, second = (
            state_differences(torch.cat([view.states[chosen], view.states[rejected]])) if of_pairs else view.states
            for view in views
        )
        loss = loss + options.contrastive_weight * _contrast(session, first, second)
    if session.language_head is not None:
        logits = session.language_head(views[0].head_inputs[chosen])
        is_response = _is_response(session.items.sequences, batch.rows[batch.pairs[:, 0]], tokens)
        loss = loss + options.language * language_loss(logits, tokens[chosen], is_response).mean()
    return loss


def _item_losses(rewards: Tensor, batch: Batch, options: TrainOptions) -> Tensor:
    """(items,) the loss of each item by the form of training, from the rewards of its texts (texts,)."""
    item = torch.from_numpy(batch.item).to(rewards.device)
    if options.form == "pointwise":
        return pointwise_loss(rewards, torch.from_numpy(batch.target).to(rewards.device))
    if options.form == "plackett-luce":
        place = torch.arange(len(item), device=rewards.device) - torch.searchsorted(item, item)
        shape = (batch.n_items, int(place.max()) + 1)
        rank = torch.full(shape, torch.nan, device=rewards.device)
        rank[item, place] = torch.from_numpy(batch.target).to(rewards.device)
        padded = torch.zeros(shape, device=rewards.device).index_put((item, place), rewards)
        return plackett_luce_loss(padded, rank)
    chosen, rejected = (torch.from_numpy(column).to(rewards.device) for column in batch.pairs.T)
    margin, label_prob, weight = (
        torch.from_numpy(column).to(rewards.device) for column in (batch.margin, batch.label_prob, batch.weight)
    )
    pair_loss = forward_corrected_loss if options.soft_label == "forward" else preference_loss
    losses = weight * pair_loss(rewards[chosen], rewards[rejected], margin, label_prob)
    of_pair = torch.from_numpy(batch.item_of_pair).to(rewards.device)
    return mean_per_list(losses, of_pair, batch.n_items)


def _contrast(session: _Session, first: Tensor, second: Tensor) -> Tensor:
    """The mean contrastive term of two views of the same vectors; SwAV's queue gets the first view."""
    if session.options.contrastive == "simcse":
        return simcse(first, second).mean()
    loss = swav(first, second, session.prototypes, session.queue).mean()
    n_kept = max(0, len(session.prototypes) - len(first))  # a queue only where vectors are fewer than prototypes
    session.queue = torch.cat([session.queue, first.detach()])[-n_kept:] if n_kept else session.queue[:0]
    return loss


def _is_response(sequences: Sequences, rows: Ints, tokens: Tensor) -> Tensor:
    """(rows, tokens) true for the tokens of the responses of these rows of `sequences`."""
    start, stop = torch.from_numpy(sequences.response[rows]).to(tokens.device)[:, :, None].unbind(1)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return (place >= start) & (place < stop)


def _set_aside(items: Items, options: TrainOptions) -> tuple[Items, Items | None]:
    """The items to fit to and those to stop early on: whole prompts, at random."""
    if not options.validation:
        return items, None
    groups = np.unique(items.group)
    n_aside = round(options.validation * len(groups))
    if not 0 < n_aside < len(groups):
        raise CurateError(
            f"--validation {options.validation:g}: {len(groups)} training prompts are too few to set some aside"
        )
    aside = np.random.default_rng([options.seed, 1]).permutation(groups)[:n_aside]
    is_aside = np.isin(items.group, aside)
    return part_of(items, np.flatnonzero(~is_aside)), part_of(items, np.flatnonzero(is_aside))


@torch.no_grad()
def _look(session: _Session, aside: Items) -> float:
    """The mean loss of items that are not trained on; the weights are kept where it is the lowest so far."""
    session.model.train(False)
    plain = [r for r in session.records if "validation_loss" in r]
    losses = []
    step = items_per_step(aside, session.options.batch_size)
    for numbers in np.split(np.argsort(-aside.lengths, kind="stable"), range(step, len(aside), step)):
        batch = batch_of(aside, numbers)
        rewards, _, _ = rewards_and_states(
            session.model, *token_batch(aside.sequences, batch.rows, session.model), session.autocast
        )
        losses.append(_item_losses(rewards, batch, session.options).double().sum().item())
    session.model.train(True)
    loss = math.fsum(losses) / len(aside)
    if all(loss < record["validation_loss"] for record in plain):
        session.best = {name: p.detach().clone() for name, p in session.trained.items()}
    return loss


def _has_stopped(records: list[dict[str, float]]) -> bool:
    """True when the last looks found no lower validation loss."""
    losses = [record["validation_loss"] for record in records if "validation_loss" in record]
    return len(losses) > PATIENCE and min(losses[-PATIENCE:]) >= min(losses[:-PATIENCE])


def _facts(session: _Session, n_at_once: int) -> dict[str, Any]:
    losses = [record["loss"] for record in session.records]
    tenth = max(1, len(losses) // 10)
    facts: dict[str, Any] = {
        "n_steps": len(losses),
        "first_loss": float(np.mean(losses[:tenth])),
        "last_loss": float(np.mean(losses[-tenth:])),
        "items_per_step": n_at_once,
        "forward_passes_per_step": session.n_parts,
    }
    looks = [record for record in session.records if "validation_loss" in record]
    if looks:
        best = min(looks, key=lambda record: record["validation_loss"])
        facts |= {"validation_loss": best["validation_loss"], "stopped_at": int(best["step"])}
    return facts


def _save(session: _Session, checkpoint: Checkpoint) -> None:
    state = {
        **{f"model.{name}": p for name, p in session.trained.items()},
        **{f"best.{name}": value for name, value in session.best.items()},
        **optimizer_tensors(session.optimizer),
        "prototypes": session.prototypes,
        "queue": session.queue,
        "generator": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["generator.cuda"] = torch.cuda.get_rng_state()
    checkpoint.save(state, {"records": session.records, "n_parts": session.n_parts})


def _restore(session: _Session, checkpoint: Checkpoint) -> None:
    found = checkpoint.load()
    if found is None:
        return
    tensors, values = found
    with torch.no_grad():
        for name, parameter in session.trained.items():
            parameter.copy_(tensors[f"model.{name}"])
        session.prototypes.copy_(tensors["prototypes"])
    device = session.model.device
    session.best = {n.removeprefix("best."): t.to(device) for n, t in tensors.items() if n.startswith("best.")}
    session.queue = tensors["queue"].to(device)
    restore_optimizer(session.optimizer, tensors)
    torch.set_rng_state(tensors["generator"])
    if "generator.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator.cuda"])
    session.records, session.n_parts = values["records"], values["n_parts"]


@contextmanager
def _training(model: PreTrainedModel, options: TrainOptions) -> Iterator[None]:
    """The model in training mode with one dropout rate, put back to its own afterwards and left in evaluation mode."""
    rate = 0.0 if options.contrastive == "none" else DROPOUT
    own = _dropout_rates(model)
    for module, name in own:
        setattr(module, name, rate)
    model.train()
    if options.checkpointing:
        switch: Any = model
        switch.activation_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        if options.checkpointing:
            switch.activation_checkpointing_disable()
        model.train(False)
        for (module, name), value in own.items():
            setattr(module, name, value)


def _dropout_rates(model: PreTrainedModel) -> dict[tuple[nn.Module, str], float]:
    """Every dropout rate of a model, and where it is: most decoders keep that of the attention as a number of the layer."""
    found = {(module, "p"): module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    numbers = [(m, name) for m in model.modules() for name in vars(m) if name in ATTENTION_DROPOUT]
    return found | {(m, name): getattr(m, name) for m, name in numbers if isinstance(getattr(m, name), float | int)}
