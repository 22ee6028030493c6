"""The options of what runs on torch, here so that the command line can show them without loading it."""

from dataclasses import dataclass, field

from curate.errors import CurateError, unknown_choice

ENSEMBLES = ("head",)
SCORINGS = ("out-of-fold", "in-sample")
FOLDS_BY = ("prompt", "pair")

# Two layers before the last; the response read after its prompt, and read alone: benchmarks/results/heads.md
DEFAULT_BLOCKS = ("full/-3/response", "response/-3/mean", "full/-3/prompt")


@dataclass(frozen=True)
class FeatureOptions:
    """What turns a text into numbers; every field is part of the feature cache's key."""

    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})
    blocks: tuple[str, ...] = DEFAULT_BLOCKS


@dataclass(frozen=True)
class VoteOptions:
    """The ensemble: what its members are, what they train on and which pairs each of them scores."""

    ensemble: str = field(default="head", metadata={"help": "head: one frozen backbone, all heads trained together"})
    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    members: int = field(default=10, metadata={"help": "members of the ensemble: each has its own plan of folds"})
    folds: int = field(
        default=2, metadata={"help": "folds of each member: it scores a pair by the model that never saw it"}
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
    seed: int = field(default=0, metadata={"help": "seed of every random choice"})

    def __post_init__(self) -> None:
        for value, what, choices in (
            (self.ensemble, "--ensemble", ENSEMBLES),
            (self.scoring, "--scoring", SCORINGS),
            (self.folds_by, "--folds-by", FOLDS_BY),
        ):
            if value not in choices:
                raise unknown_choice(what, value, choices)
        if self.members < 1 or self.folds < 2:
            raise CurateError(
                f"--members {self.members} --folds {self.folds}: give at least 1 member and 2 folds "
                "(--scoring in-sample for none)"
            )

    @property
    def features(self) -> FeatureOptions:
        """What the backbone computes for this ensemble."""
        return FeatureOptions(self.backbone, self.max_tokens, self.dtype)


@dataclass(frozen=True)
class TrainOptions:
    """What the training loop does with a model and its pairs."""

    learning_rate: float = field(
        default=0.0, metadata={"help": "peak learning rate of full fine-tuning; 0 takes it from the model's width"}
    )
    batch_size: int = field(default=16, metadata={"help": "pairs per step of full fine-tuning"})
    contrastive: str = field(
        default="none", metadata={"help": "contrastive term over two dropout views of each response: none or simcse"}
    )
    contrastive_weight: float = field(default=1.0, metadata={"help": "beta of the contrastive term"})
    seed: int = field(default=0, metadata={"help": "seed of every random choice"})


@dataclass(frozen=True)
class RetrainOptions(TrainOptions):
    """How the final reward models, curated and raw, are trained."""

    train: str = field(
        default="head",
        metadata={"help": "head (frozen backbone), stock-head (a head that stock classes load) or full (fine-tuning)"},
    )
    margin: bool = field(default=True, metadata={"help": "train the curated model with the margins of the decisions"})
    hidden: int = field(default=0, metadata={"help": "hidden units of a two-layer head; 0 is a linear head"})
    epochs: float = field(
        default=1.0,
        metadata={"help": "passes over the raw pairs in full fine-tuning; curated pairs get as many in all"},
    )
    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})
