"""What a training run writes of every step: a line of JSON, and TensorBoard's events where they are asked for."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from curate.errors import CurateError


@contextmanager
def metrics_log(
    path: Path | None, tensorboard: str, records: list[dict[str, float]]
) -> Iterator[Callable[[dict[str, float]], None]]:
    """What takes a step's record: a line of JSON, and TensorBoard's events; steps that will be done again are cut off."""
    with ExitStack() as stack:
        file = writer = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w", encoding="utf-8", buffering=1))
            file.writelines(json.dumps(record) + "\n" for record in records)
        if tensorboard:
            writer = stack.enter_context(_tensorboard(tensorboard, len(records)))

        def take(record: dict[str, float]) -> None:
            if file is not None:
                file.write(json.dumps(record) + "\n")
            if writer is not None:
                for name in sorted(record.keys() - {"step"}):
                    writer.add_scalar(name, record[name], record["step"])

        yield take


def _tensorboard(folder: str, n_done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise CurateError(f"--tensorboard {folder}: TensorBoard is not installed; pip install tensorboard") from error
    return SummaryWriter(folder, purge_step=n_done + 1)
