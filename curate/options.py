"""The options of the stages that need numpy or torch, here so that the command line can show them without loading either."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf
from typing import Any

from curate.errors import CurateError, unknown_choice
from curate.policy import RESTS, Policy, load_policy, presets

ENSEMBLES = ("head", "lora", "full")
SCORINGS = ("out-of-fold", "in-sample")
FOLDS_BY = ("prompt", "pair")
# By pair a text's other pairs teach what it is worth: the more of them a model sees, the better (results/detection.md)
DEFAULT_FOLDS = {"prompt": 2, "pair": 5}
# S2: ten Llama-2-7B, each trained for one epoch on the same pairs in another order, learning rate 5e-6, batch 32
VOTE_PRESETS: dict[str, dict[str, Any]] = {
    "secrets2": {
        "ensemble": "full",
        "scoring": "in-sample",
        "members": 10,
        "learning_rate": 5e-6,
        "batch_size": 32,
        "epochs": 1.0,
    }
}
TRAIN_CHOICES = {
    "form": ("pairwise", "listwise", "plackett-luce", "pointwise"),
    "soft_label": ("smooth", "forward"),
    "contrastive": ("none", "simcse", "swav"),
    "contrastive_on": ("responses", "differences"),
    "schedule": ("linear", "cosine", "inverse_sqrt", "constant"),
}
PII_LIBRARIES = ("phonenumbers", "stdnum")
COMBINATIONS = ("mean", "weighted", "min", "mean-std")

# Two layers before the last; the response read after its prompt, and read alone: benchmarks/results/heads.md
DEFAULT_BLOCKS = ("full/-3/response", "response/-3/mean", "full/-3/prompt")


@dataclass(frozen=True)
class FeatureOptions:
    """What turns a text into numbers; every field is part of the feature cache's key."""

    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})
    blocks: tuple[str, ...] = DEFAULT_BLOCKS
    deterministic: bool = False  # each text in a batch of its own


@dataclass(frozen=True)
class CheckOptions:
    """What the data checks look for beside what they always do."""

    near: bool = field(default=True, metadata={"help": "look for near-duplicates too"})
    against: str | None = field(
        default=None,
        metadata={"help": "also look for overlap with this file, folder or hub id (a test set, a benchmark)"},
    )
    pii: bool = field(
        default=False,
        metadata={
            "help": "also look for personal data (addresses, phone, card, account, identity numbers); "
            'needs: pip install "prefcurate[pii]"'
        },
    )

    def __post_init__(self) -> None:
        missing = [name for name in PII_LIBRARIES if self.pii and find_spec(name) is None]
        if missing:
            raise CurateError(f'--pii: {missing[0]} is not installed; type: pip install "prefcurate[pii]"')


@dataclass(frozen=True)
class FineTuneOptions:
    """How a backbone is fine-tuned, whoever asks for it: a member of an ensemble or the final reward model."""

    epochs: float = field(
        default=1.0, metadata={"help": "passes over the pairs in fine-tuning (curated and raw see equally many)"}
    )
    learning_rate: float = field(
        default=0.0, metadata={"help": "peak learning rate of fine-tuning; 0 takes it from the model's width"}
    )
    batch_size: int = field(default=16, metadata={"help": "pairs per step of fine-tuning"})
    lora_rank: int = field(default=16, metadata={"help": "rank of the LoRA matrices (lora)"})

    def __post_init__(self) -> None:
        if not (0 < self.epochs < inf and 0 <= self.learning_rate < inf and self.batch_size > 0 and self.lora_rank > 0):
            raise CurateError(
                f"--epochs {self.epochs:g} --learning-rate {self.learning_rate:g} --batch-size {self.batch_size} --lora-rank "
                f"{self.lora_rank}: epochs are above 0, the learning rate is 0 or more, batch size and rank are 1 or more"
            )


@dataclass(frozen=True)
class VoteOptions(FineTuneOptions):
    """The ensemble: what its members are, what they train on and which pairs each of them scores."""

    ensemble: str = field(
        default="head", metadata={"help": "head (frozen backbone, all members at once), lora or full (each fine-tunes)"}
    )
    backbone: str = field(
        default="minilm",
        metadata={"help": "minilm, a local model folder, or a Hugging Face id; several between commas take turns"},
    )
    members: int = field(default=10, metadata={"help": "members of the ensemble: each has its own plan of folds"})
    folds: int = field(
        default=0,
        metadata={
            "help": "folds of each member: it scores a pair by the model that never saw it; 0 is 2, or 5 with --folds-by pair"
        },
    )
    folds_by: str = field(default="prompt", metadata={"help": "what stays in one fold: prompt, or pair"})
    scoring: str = field(
        default="out-of-fold",
        metadata={
            "help": "out-of-fold, or in-sample: every member trains on all pairs, weighted at random, and scores them"
        },
    )
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})
    deterministic: bool = field(
        default=False, metadata={"help": "read each text alone, so that no reward depends on its batch (slower)"}
    )
    jobs: int = field(default=1, metadata={"help": "models of lora and full that are trained side by side"})
    preset: str = field(
        default="none",
        metadata={
            "help": "secrets2: the method as published (full, 10 members, in-sample, its learning rate and batch); "
            "options given beside it win"
        },
    )
    seed: int = field(default=0, metadata={"help": "seed of every random choice"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for value, what, choices in (
            (self.preset, "--preset", ("none", *VOTE_PRESETS)),
            (self.ensemble, "--ensemble", ENSEMBLES),
            (self.scoring, "--scoring", SCORINGS),
            (self.folds_by, "--folds-by", FOLDS_BY),
        ):
            if value not in choices:
                raise unknown_choice(what, value, choices)
        if self.jobs < 1 or not all(self.backbones):
            raise CurateError(
                f"--jobs {self.jobs} --backbone {self.backbone!r}: give 1 job or more, and names between commas"
            )
        if 1 <= self.members < len(self.backbones):
            raise CurateError(f"--members {self.members}: fewer than the backbones {self.backbone}; give each a member")
        if self.members < 1 or self.folds < 0 or self.folds == 1:
            raise CurateError(
                f"--members {self.members} --folds {self.folds}: give at least 1 member and 2 folds "
                "(--scoring in-sample for none)"
            )

    @classmethod
    def of(cls, **given: Any) -> "VoteOptions":
        """These options, and those of the preset among them where they say nothing."""
        return cls(**{**VOTE_PRESETS.get(given.get("preset", "none"), {}), **given})

    @property
    def n_folds(self) -> int:
        """Folds of each member out of fold."""
        return self.folds or DEFAULT_FOLDS[self.folds_by]

    @property
    def features(self) -> FeatureOptions:
        """What the backbone computes for this ensemble."""
        return FeatureOptions(self.backbones[0], self.max_tokens, self.dtype, deterministic=self.deterministic)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The names of the backbones, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.backbone.split(",")))

    def backbone_of(self, member: int) -> str:
        """The backbone of a member; several take turns."""
        return self.backbones[member % len(self.backbones)]


VERIFIED_HELP = {"help": "a file of verified pairs (pair_id, label_is_right: true, false or unsure), see curate sample"}


@dataclass(frozen=True)
class StrengthOptions:
    """What the votes are calibrated on."""

    verified: str | None = field(default=None, metadata=VERIFIED_HELP)


@dataclass(frozen=True)
class DecideOptions:
    """What is done to each pair."""

    policy: str = field(
        default="auto",
        metadata={"help": f"a preset ({', '.join(presets())}) or a YAML file of rules (ends in .yaml)"},
    )
    verified: str | None = field(default=None, metadata=VERIFIED_HELP)
    max_wrong_flips: float | None = field(
        default=None,
        metadata={"help": "policy guaranteed: the share of its flips that may be wrong on average  [default: 0.05]"},
    )
    max_wrong_kept: float | None = field(
        default=None,
        metadata={"help": "policy guaranteed: drop pairs until at most this share of what is kept is wrong on average"},
    )
    rest: str = field(
        default="keep", metadata={"help": "what happens to pairs that no rule of the policy decides: keep, or auto"}
    )

    def __post_init__(self) -> None:
        for name in ("max_wrong_flips", "max_wrong_kept"):
            level = getattr(self, name)
            if level is not None and not 0 < level < 1:
                raise CurateError(f"--{name.replace('_', '-')} {level:g}: give a share between 0 and 1, such as 0.05")
        if self.rest not in RESTS:
            raise unknown_choice("--rest", self.rest, RESTS)

    @property
    def chosen(self) -> Policy:
        """The policy; refuses a guarantee that no rule of it asks for, and a rest whose margins are on another scale."""
        policy = load_policy(self.policy)
        for name, column in (("max_wrong_flips", "flip_is_certified"), ("max_wrong_kept", "keep_is_certified")):
            if getattr(self, name) is not None and not any(column in rule.where for rule in policy.rules):
                raise CurateError(
                    f"--{name.replace('_', '-')}: no rule of policy {policy.name} asks for {column}; add --policy guaranteed"
                )
        if self.rest == "auto" and policy.margin == "raw":
            raise CurateError(
                f"--rest auto: its margins are scaled and those of {policy.name} are raw; leave out --rest"
            )
        return policy


@dataclass(frozen=True)
class TrainOptions(FineTuneOptions):
    """What the training loop does with a model and its pairs."""

    form: str = field(
        default="pairwise",
        metadata={
            "help": "pairwise, listwise (all pairs of a prompt at once), plackett-luce (their order) or pointwise"
        },
    )
    soft_label: str = field(
        default="smooth", metadata={"help": "what a smoothed pair's label_prob does: smooth, or forward (correction)"}
    )
    contrastive: str = field(
        default="none",
        metadata={"help": "contrastive term over two dropout views of each response: none, simcse or swav"},
    )
    contrastive_on: str = field(
        default="responses", metadata={"help": "what is contrasted: responses, or differences (chosen minus rejected)"}
    )
    contrastive_weight: float = field(default=1.0, metadata={"help": "beta of the contrastive term"})
    centring: float = field(
        default=0.0, metadata={"help": "weight of the squared sum of a pair's rewards (0.01 is usual)"}
    )
    language: float = field(
        default=0.0, metadata={"help": "weight of the chosen response's next-token loss (decoders); 0 is without"}
    )
    schedule: str = field(
        default="linear", metadata={"help": "learning rate: linear, cosine, inverse_sqrt or constant"}
    )
    warmup: float = field(default=0.1, metadata={"help": "share of the steps in which the learning rate rises"})
    validation: float = field(
        default=0.0, metadata={"help": "share of the training prompts to stop early on, by their loss; 0 is without"}
    )
    micro_batch: int = field(
        default=0, metadata={"help": "pairs per forward pass, gradients add up; 0 is all of a step"}
    )
    checkpointing: bool = field(
        default=False, metadata={"help": "recompute activations in the backward pass: less memory, more time"}
    )
    tensorboard: str = field(default="", metadata={"help": "folder for TensorBoard's event files of fine-tuning"})
    seed: int = field(default=0, metadata={"help": "seed of every random choice"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in TRAIN_CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown_choice(f"--{name.replace('_', '-')}", getattr(self, name), choices)
        for name in ("contrastive_weight", "centring", "language", "micro_batch"):
            if not 0 <= getattr(self, name) < inf:
                raise CurateError(f"--{name.replace('_', '-')} {getattr(self, name):g}: give 0 or more")
        if not 0 <= self.warmup < 1 or not 0 <= self.validation <= 0.5:
            raise CurateError(
                f"--warmup {self.warmup:g} --validation {self.validation:g}: give shares of the steps below 1 and of the "
                "prompts up to 0.5"
            )
        of_pairs = {
            "--soft-label forward": self.soft_label != "smooth",
            "--centring": self.centring > 0,
            "--language": self.language > 0,
            "--contrastive-on differences": self.contrastive_on != "responses",
        }
        for name, is_given in of_pairs.items():
            if is_given and self.form in ("plackett-luce", "pointwise"):
                raise CurateError(f"{name}: a term of pairs, which --form {self.form} has not; leave it out")


@dataclass(frozen=True)
class RetrainOptions(TrainOptions):
    """How the final reward models, curated and raw, are trained."""

    train: str = field(
        default="head",
        metadata={
            "help": "head (frozen backbone), stock-head (a head that stock classes load), lora or full (fine-tuning)"
        },
    )
    margin: bool = field(default=True, metadata={"help": "train the curated model with the margins of the decisions"})
    hidden: int = field(default=0, metadata={"help": "hidden units of a two-layer head; 0 is a linear head"})
    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})


@dataclass(frozen=True)
class ScoreOptions:
    """How texts are scored, and how the standardised rewards of several models become one."""

    combine: str = field(
        default="mean", metadata={"help": f"one reward from those of several models: {', '.join(COMBINATIONS)}"}
    )
    weights: str = field(
        default="", metadata={"help": "--combine weighted: a weight for MODEL and for each --with, such as .5,.3,.2"}
    )
    k: float = field(
        default=1.0, metadata={"help": "--combine mean-std: standard deviations over the models to take off the mean"}
    )
    deterministic: bool = field(
        default=False, metadata={"help": "read each text alone, so that no reward depends on its batch (slower)"}
    )

    def __post_init__(self) -> None:
        if self.combine not in COMBINATIONS:
            raise unknown_choice("--combine", self.combine, COMBINATIONS)
        if self.weights and self.combine != "weighted":
            raise CurateError(f"--weights {self.weights}: --combine {self.combine} has none; add --combine weighted")
        if not 0 <= self.k < float("inf"):
            raise CurateError(f"--k {self.k:g}: give 0 or more standard deviations to take off, such as 1")

    def weights_of(self, n_models: int) -> list[float]:
        """The weight of each of several models; refuses another number of them, and what is not above 0."""
        try:
            weights = [float(weight) for weight in self.weights.split(",")]
        except ValueError:
            weights = []
        if len(weights) != n_models or not all(0 < weight < float("inf") for weight in weights):
            raise CurateError(
                f"--weights {self.weights!r}: give {n_models} numbers above 0 between commas, one per model, MODEL first"
            )
        return weights


def options_from(given: Mapping[str, Any], *classes: Any) -> list[Any]:
    """One instance of each options class from flat keyword arguments; refuses a name that none of them has."""
    fields = [set(cls.__dataclass_fields__) for cls in classes]
    unknown = set(given) - set().union(*fields)
    if unknown:
        known = ", ".join(sorted(set().union(*fields)))
        raise CurateError(f"unknown option {sorted(unknown)[0]!r}: choose from {known}")
    return [
        getattr(cls, "of", cls)(**{name: given[name] for name in names & set(given)})
        for cls, names in zip(classes, fields, strict=True)
    ]
