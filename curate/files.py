"""Files of rows: .jsonl, .json, .csv, .parquet and .arrow, plain or .gz or .zst, a row at a time with its place.

A place is `FILE: row 3 (line 4)`; rows count from 0 as in `pair_id`, lines from 1 as in an editor. Blank lines are no
rows. A line that cannot be read ends the reading with one error that names it: no row is ever skipped.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from curate.errors import CurateError

Row = dict[str, Any]
PlacedRow = tuple[str, Row]
Part = TypeVar("Part")

COMPRESSIONS = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
BATCH_ROWS = 2048  # rows of a parquet or arrow file that are Python objects at one time


class Meter:
    """How many bytes of some files have been read, as they lie there: of a compressed file the compressed ones."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self.total = sum(path.stat().st_size for path in paths if path.is_file())
        self.before = 0  # of the files that have been read
        self.size = 0  # of the one that is being read
        self.share: Callable[[], float] = float  # how much of that one

    @property
    def done(self) -> int:
        """Bytes read so far."""
        return self.before + int(self.size * self.share())

    def begin(self, size: int, position: Callable[[], int]) -> None:
        """The next file is read, from beginning to end unless its reader says what to follow."""
        self.size, self.share = size, lambda: position() / size

    def follow(self, parts: Iterable[Part], n_parts: int) -> Iterator[Part]:
        """The parts of a file that is not read from beginning to end; how many have come is how much of it was read."""
        number = 0
        self.share = lambda: number / n_parts
        for part in parts:
            number += 1
            yield part

    def end(self) -> None:
        """The file has been read."""
        self.before, self.size, self.share = self.before + self.size, 0, float


def kind_of(path: Path) -> str:
    """The suffix that says what is in a file, without the compression: `.jsonl` for `a.jsonl.gz`, "" for unknown ones.

    >>> kind_of(Path("hh.test.jsonl.gz")), kind_of(Path("README.md"))
    ('.jsonl', '')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else ""


def source_name(path: Path) -> str:
    """A file's or folder's name without the suffixes that say its kind and compression.

    >>> source_name(Path("data/hh.test.jsonl.gz"))
    'hh.test'
    """
    name = path.resolve().name if path.is_dir() else path.name
    for suffix in (*COMPRESSIONS, kind_of(path)):
        if suffix and name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def file_rows(path: Path, meter: Meter | None = None) -> Generator[PlacedRow, None, None]:
    """Each row of a file with its place; refuses unknown kinds, damaged files and files without a row.

    `meter` is told how much of the file has been read.
    """
    kind, meter = kind_of(path), meter or Meter()
    if not path.exists():
        raise CurateError(f"{path}: no such file; check the path")
    if not kind:
        raise CurateError(f"{path}: unknown kind of file; expected {', '.join(KINDS)}, plain or with .gz or .zst")
    n_rows = 0
    try:
        with open_file(path) as file, plain(file, path) as stream:
            meter.begin(path.stat().st_size, file.tell)
            for place, row in KINDS[kind](stream, path, meter):
                yield f"{path}: {place}", row
                n_rows += 1
            meter.end()
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CurateError(f"{path}: damaged or cut short ({reason}); fetch or write it again") from None
    if n_rows == 0:
        raise CurateError(f"{path}: holds no rows; expected at least one pair")


def open_file(path: Path) -> io.BufferedReader:
    """A file's bytes as a stream."""
    try:
        return path.open("rb")
    except OSError as error:
        raise CurateError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def plain(file: io.BufferedReader, path: Path) -> BinaryIO:
    """A file's decompressed bytes as a stream; the first bytes decide, and must agree with a .gz or .zst suffix."""
    start = file.peek(4)
    if not start:
        raise CurateError(f"{path}: empty file; expected at least one pair")
    suffix = path.suffix.lower()
    for known, (compression, magic) in COMPRESSIONS.items():
        if start.startswith(magic):
            return buffered(pa.CompressedInputStream(file, compression))
        if suffix == known:
            raise CurateError(f"{path}: named {known} but not {compression} data; remove {known} from its name")
    return file


def buffered(stream: pa.NativeFile) -> BinaryIO:
    """An arrow stream as a Python stream that gives lines quickly."""
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20))


def decode(data: bytes, path: Path, line: int) -> str:
    """UTF-8 text, which begins on `line`, without a byte order mark; refuses anything else, naming the line."""
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        at = line + data.count(b"\n", 0, error.start)
        found = f"byte 0x{data[error.start]:02x}"
        raise CurateError(f"{path}: not UTF-8 text at line {at} ({found}); save the file as UTF-8") from None


def parse_json(text: str, path: Path, line: int) -> Any:
    """The value of a JSON text that begins on `line`; NaN and lone surrogates pass and are refused where they matter.

    The standard parser, not a faster one, because it keeps integers of any length (ids) exact.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {line + error.lineno - 1}"
        raise CurateError(
            f"{path}: not JSON at {at}: {error.msg} (column {error.colno}); expected one object per line, "
            "or in a .json file a list of objects"
        ) from None
    except RecursionError:
        raise CurateError(f"{path}: nested too deeply at line {line}; expected a pair of texts or messages") from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise CurateError(f"{path}: not a usable number at line {line}: {error}") from None


def as_row(value: Any, path: Path, place: str) -> Row:
    """A JSON value that has to be an object."""
    if not isinstance(value, dict):
        found = "null" if value is None else type(value).__name__
        raise CurateError(f'{path}: {place} is {found}; expected an object like {{"prompt": ..., "chosen": ...}}')
    return value


def json_lines(stream: Iterable[bytes], path: Path, _meter: Meter) -> Iterator[PlacedRow]:
    """One JSON object per line."""
    row = 0
    for line, data in enumerate(stream, start=1):
        text = decode(data, path, line).rstrip("\r\n")
        if text.isspace() or not text:
            continue
        place = f"row {row} (line {line})"
        yield place, as_row(parse_json(text, path, line), path, place)
        row += 1


def json_list(stream: BinaryIO, path: Path, meter: Meter) -> Iterator[PlacedRow]:
    """A JSON list of objects, or ICAI's annotated pairs; another .json file that begins with an object is JSON lines."""
    data = stream.read()
    text = decode(data, path, 1)
    if text.lstrip().startswith("["):
        values = parse_json(text, path, 1)
    elif (values := comparisons(whole := single_object(text))) is None:
        if whole and all(isinstance(value, list) for value in whole.values()):
            raise CurateError(
                f"{path}: is one object of lists ({', '.join(map(str, whole))}); expected a list of objects, one per pair"
            )
        yield from meter.follow(json_lines(io.BytesIO(data), path, meter), data.count(b"\n") + 1)
        return
    for row, value in enumerate(meter.follow(values, len(values))):
        yield f"row {row}", as_row(value, path, f"row {row}")


def single_object(text: str) -> dict[str, Any] | None:
    """The object that is all of a JSON text; None for other text."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return whole if isinstance(whole, dict) else None


def comparisons(whole: dict[str, Any] | None) -> list[Any] | None:
    """The comparisons of ICAI's annotated pairs, each with the file's annotators; None for another object.

    >>> comparisons({"metadata": {"default_annotator": "ann"}, "comparisons": [{"id": 1}]})
    [{'id': 1, 'default_annotator': 'ann', 'annotators': {}}]
    """
    if whole is None or not isinstance(whole.get("comparisons"), list):
        return None
    metadata = whole.get("metadata")
    default = metadata.get("default_annotator") if isinstance(metadata, dict) else None
    shared = {"default_annotator": default, "annotators": whole.get("annotators", {})}
    return [{**entry, **shared} if isinstance(entry, dict) else entry for entry in whole["comparisons"]]


def csv_rows(stream: Iterable[bytes], path: Path, _meter: Meter) -> Iterator[PlacedRow]:
    """A comma-separated table with a header; every cell is text, numbers and lists are read from it later."""
    lines = (decode(data, path, line) for line, data in enumerate(stream, start=1))
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses responses over 128 KiB
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        if len(header) == 1 and (mark := re.search("[;\t|]", header[0])):
            raise CurateError(f"{path}: the header has {mark[0]!r} and no comma; separate the columns by commas")
        if len(set(header)) < len(header):
            raise CurateError(f"{path}: a column name is there twice: {', '.join(header)}; rename one")
        for row, cells in enumerate(cells for cells in reader if cells):
            if len(cells) != len(header):
                raise CurateError(
                    f"{path}: row {row} (line {reader.line_num}) has {len(cells)} cells, the header {len(header)}; "
                    "put quotes around texts that hold commas or line breaks"
                )
            yield f"row {row} (line {reader.line_num})", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise CurateError(f"{path}: not CSV at line {reader.line_num}: {error}; mend that line") from None
    finally:
        csv.field_size_limit(limit)


def parquet_rows(stream: BinaryIO, path: Path, meter: Meter) -> Iterator[PlacedRow]:
    """A parquet file, a few thousand rows in memory at a time."""
    file = pa.parquet.ParquetFile(seekable(stream))
    rows = batch_rows(file.iter_batches(batch_size=BATCH_ROWS), path)
    yield from meter.follow(rows, file.metadata.num_rows)


def arrow_rows(stream: BinaryIO, path: Path, meter: Meter) -> Iterator[PlacedRow]:
    """An arrow file, or the arrow stream that `datasets` writes."""
    source = seekable(stream)
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from batch_rows(pa.ipc.open_stream(source), path)
        return
    batches = (file.get_batch(number) for number in range(file.num_record_batches))
    yield from batch_rows(meter.follow(batches, file.num_record_batches), path)


def seekable(stream: BinaryIO) -> BinaryIO:
    """The stream itself, or its decompressed bytes in memory."""
    return stream if isinstance(stream, io.BufferedReader) and stream.seekable() else io.BytesIO(stream.read())


def batch_rows(batches: Iterable[pa.RecordBatch], name: Path | str) -> Iterator[PlacedRow]:
    """The rows of arrow batches, each batch checked before it is trusted."""
    row = 0
    for batch in batches:
        names = column_names(batch.schema)
        if len(set(names)) < len(names):
            raise CurateError(f"{name}: a column name is there twice: {', '.join(names)}; rename one")
        batch.validate(full=True)
        table = cast(pl.DataFrame, pl.from_arrow(batch.replace_schema_metadata(None)))
        for values in table.iter_rows(named=True):
            yield f"row {row}", values
            row += 1


def column_names(fields: Iterable[pa.Field]) -> list[str]:
    """The names of fields; raises UnicodeDecodeError where one of them or of the fields within them is not text."""
    names = []
    for entry in fields:
        column_names(entry.type.field(number) for number in range(entry.type.num_fields))
        names.append(entry.name)
    return names


Reader = Callable[[Any, Path, Meter], Iterator[PlacedRow]]
KINDS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_list,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
}
