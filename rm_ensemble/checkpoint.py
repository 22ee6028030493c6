"""The state of a training run on disk, so that a run that was killed goes on to the same weights.

One safetensors file, whose header holds the rest as JSON: no pickle, and a file is either whole or not there.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from curate.errors import CurateError
from curate.run import whole_file

SECONDS_BETWEEN = 10.0
SAVES_BETWEEN = 20  # at least as many times as long as saving took: a twentieth of the time at most


class Checkpoint:
    """Where a training run keeps its state; `key` stands for all that decides its outcome, and another key starts anew."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.saved_at, self.save_seconds = time.monotonic(), 0.0

    @property
    def is_due(self) -> bool:
        """True when the last state is old enough for another."""
        return time.monotonic() - self.saved_at >= max(SECONDS_BETWEEN, SAVES_BETWEEN * self.save_seconds)

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the state by this one; `values` are JSON values."""
        start = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = {"key": self.key, "values": json.dumps(values)}
        with whole_file(self.path) as partial:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, header)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - start

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and values of the last state; None where there is none, or none of this key."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("key") != self.key:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(header["values"])  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CurateError(f"{self.path}: damaged ({error}); delete it and run the same command") from error

    def remove(self) -> None:
        """Delete the state of a run that is done."""
        self.path.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state by parameter number and name: `optimizer.3.exp_avg`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimizer_tensors` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            number, _, name = rest.partition(".")
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
