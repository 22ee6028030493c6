"""The options of what runs on torch, here so that the command line can show them without loading it."""

from dataclasses import dataclass, field

DEFAULT_BLOCKS = ("full/6/response", "full/4/response", "full/6/prompt", "response/6/mean")


@dataclass(frozen=True)
class FeatureOptions:
    """What turns a text into numbers; every field is part of the feature cache's key."""

    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})
    blocks: tuple[str, ...] = DEFAULT_BLOCKS
