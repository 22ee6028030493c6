"""Arrays that grow row by row into one memory-mapped safetensors file, and survive an interruption.

A file under its final name, `KEY.safetensors`, is complete. While it grows it is `.KEY.partial`, and `.KEY.json` says
how many steps are on disk, so that the same work goes on where it was.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.run import write_json

Floats = npt.NDArray[np.float32]
ZEROS = memoryview(bytes(1 << 24))  # written, not skipped: on a full disk this is an error, a hole ends in a SIGBUS


class GrowingFile:
    """`arrays`, by name float32 and zero at first, on disk; without a folder the same in memory.

    `n_done` steps are on disk; later ones may be there in part and are to be written again.
    """

    def __init__(
        self, folder: Path | None, key: str, shapes: Mapping[str, tuple[int, int]], facts: dict[str, Any]
    ) -> None:
        self.folder, self.key, self.facts, self.n_done = folder, key, facts, 0
        if folder is None:
            self.arrays: dict[str, Floats] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.partial, self.progress = folder / f".{key}.partial", folder / f".{key}.json"
        if self.partial.is_file() and self.progress.is_file():
            self.n_done = json.loads(self.progress.read_text(encoding="utf-8"))["n_done"]
        else:
            _create(self.partial, shapes, facts)
        self.arrays, _ = open_arrays(self.partial, mode="r+")

    def save(self, n_done: int) -> None:
        """Put everything up to this step on disk."""
        self.n_done = n_done
        if self.folder is not None:
            self._flush()
            write_json({"n_done": n_done}, self.progress)

    def finish(self) -> tuple[dict[str, Floats], dict[str, Any]]:
        """Give the file its final name; its arrays, read-only, and facts."""
        if self.folder is None:
            return self.arrays, self.facts
        self._flush()
        final = self.partial.replace(finished_file(self.folder, self.key))
        self.progress.unlink(missing_ok=True)
        return open_arrays(final)

    def _flush(self) -> None:
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()


def finished_file(folder: Path, key: str) -> Path:
    """Where complete arrays lie."""
    return folder / f"{key}.safetensors"


def open_arrays(path: Path, mode: str = "r") -> tuple[dict[str, Floats], dict[str, Any]]:
    """The arrays of a file by name, memory-mapped, and its facts.

    The safetensors package reads whole arrays; this maps them: 8 bytes header length, JSON header, data.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    facts: dict[str, Any] = json.loads(header.pop("__metadata__")["facts"])
    arrays: dict[str, Floats] = {}
    for name, entry in header.items():
        shape, offset = tuple(entry["shape"]), 8 + size + entry["data_offsets"][0]
        is_empty = 0 in shape  # an empty file region cannot be mapped
        arrays[name] = (
            np.zeros(shape, np.float32) if is_empty else np.memmap(path, np.float32, mode, offset, shape)  # type: ignore[call-overload]
        )
    return arrays, facts


def _create(path: Path, shapes: Mapping[str, tuple[int, int]], facts: dict[str, Any]) -> None:
    header: dict[str, Any] = {"__metadata__": {"facts": json.dumps(facts, sort_keys=True)}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, end, len(ZEROS)):
            file.write(ZEROS[: end - start])
