import gc
import gzip
import io
import json
import random
import string
import warnings

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from curate.errors import CurateError
from curate.files import Meter, file_rows, kind_of, source_name
from curate.formats import read_pairs

ROWS = [{"prompt": "Sky?", "chosen": f"Blue {row}, “really”\n", "rejected": None, "n": row} for row in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = pl.DataFrame(ROWS)


def parquet():
    stream = io.BytesIO()
    TABLE.write_parquet(stream)
    return stream.getvalue()


def arrow(new=pa.ipc.new_file, table=TABLE, n_rows=None):
    stream = io.BytesIO()
    with new(stream, table.to_arrow().schema) as writer:
        writer.write_table(table.to_arrow(), n_rows)
    return stream.getvalue()


CONTENTS = {
    "a.jsonl": LINES,
    "a.ndjson": LINES,
    "a.JSONL": LINES,
    "lines.json": LINES,
    "list.json": json.dumps(ROWS, indent=1).encode(),
    "a.parquet": parquet(),
    "file.arrow": arrow(),
    "stream.arrow": arrow(pa.ipc.new_stream),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file and gives its path, short as a user types it."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, data):
        path = tmp_path.joinpath(name).relative_to(tmp_path)
        path.write_bytes(data)
        return path

    return write_file


MANY = [
    {"prompt": "Sky?", "chosen": "".join(random.Random(row).choices(string.ascii_letters, k=400))}
    for row in range(2500)
]
MANY_LINES = "".join(json.dumps(row) + "\n" for row in MANY).encode()
MANY_TABLE = pl.DataFrame(MANY)


def written(method):
    stream = io.BytesIO()
    getattr(MANY_TABLE, method)(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", MANY_LINES),
        ("a.jsonl.gz", gzip.compress(MANY_LINES)),
        ("a.jsonl.zst", zstandard.compress(MANY_LINES)),
        ("a.json", json.dumps(MANY).encode()),
        ("lines.json", MANY_LINES),
        ("a.csv", written("write_csv")),
        ("a.parquet", written("write_parquet")),
        ("a.parquet.gz", gzip.compress(written("write_parquet"))),
        ("a.arrow", arrow(table=MANY_TABLE, n_rows=500)),
        ("stream.arrow", arrow(pa.ipc.new_stream, MANY_TABLE, 500)),
    ],
)
def test_how_much_of_a_file_has_been_read_is_told_in_its_own_bytes(write, name, data):
    path = write(name, data)
    meter = Meter([path, path])
    seen = [[meter.done for _ in file_rows(path, meter)] for _ in range(2)]
    assert meter.total == 2 * len(data)
    assert [len(done) for done in seen] == [2500, 2500]
    assert sorted(seen[0]) + sorted(seen[1]) == [*seen[0], *seen[1]]
    assert 0 < seen[0][1000] < len(data) <= seen[1][0]
    assert len(data) < seen[1][1000] < seen[1][-1] <= meter.done == meter.total


def rows_of(path):
    return [row for _, row in file_rows(path)]


def error_of(path):
    """The message of a file that cannot be read, which is one line."""
    with pytest.raises(CurateError) as error:
        rows_of(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_every_kind_plain_or_compressed_gives_the_same_rows(write, name, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    assert rows_of(write(name + packed, pack(CONTENTS[name]))) == ROWS


def test_compressed_data_is_known_by_its_first_bytes(write):
    assert rows_of(write("a.jsonl", gzip.compress(LINES))) == ROWS
    assert error_of(write("a.jsonl.gz", LINES)) == "a.jsonl.gz: named .gz but not gzip data; remove .gz from its name"


def test_joined_compressed_parts_are_read_to_the_end(write):
    halves = LINES[:50], LINES[50:]
    assert rows_of(write("a.jsonl.gz", b"".join(map(gzip.compress, halves)))) == ROWS
    assert rows_of(write("a.jsonl.zst", b"".join(map(zstandard.compress, halves)))) == ROWS


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_compressed_file_cut_anywhere_is_refused(write, suffix, pack):
    data = pack(LINES)
    for length in range(4, len(data)):
        message = error_of(write("a.jsonl" + suffix, data[:length]))
        assert message.startswith(f"a.jsonl{suffix}: damaged or cut short (Truncated compressed stream)")


def test_rows_count_from_zero_and_lines_from_one_and_blank_lines_are_no_rows(write):
    lines = LINES.splitlines()
    data = b"\xef\xbb\xbf" + lines[0] + b"\r\n\n  \r\n" + lines[1] + b"\n" + lines[2]
    assert list(file_rows(write("a.jsonl", data))) == list(
        zip(["a.jsonl: row 0 (line 1)", "a.jsonl: row 1 (line 4)", "a.jsonl: row 2 (line 5)"], ROWS, strict=True)
    )


def test_a_line_separator_inside_a_text_ends_no_line(write):
    row = {"chosen": "a\u2028b\x85c\x0bd"}
    assert rows_of(write("a.jsonl", json.dumps(row, ensure_ascii=False).encode())) == [row]


def test_long_integers_and_long_texts_stay_exact(write):
    row = {"id": 123456789012345678901234567890, "chosen": "x" * 3_000_000}
    assert rows_of(write("a.jsonl", json.dumps(row).encode())) == [row]


def test_csv_cells_are_text_with_quotes_and_line_breaks_inside(write):
    data = '\ufeffchosen,rejected\r\n"a, ""b""\nc",NaN\r\n,' + "x" * 200_000 + "\r\n"
    assert list(file_rows(write("a.csv", data.encode()))) == [
        ("a.csv: row 0 (line 3)", {"chosen": 'a, "b"\nc', "rejected": "NaN"}),
        ("a.csv: row 1 (line 4)", {"chosen": "", "rejected": "x" * 200_000}),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: empty file; expected at least one pair"),
        ("a.jsonl", b"\n \n", "a.jsonl: holds no rows; expected at least one pair"),
        ("a.jsonl.gz", gzip.compress(b""), "a.jsonl.gz: holds no rows"),
        ("a.json", b"[]", "a.json: holds no rows"),
        ("a.csv", b"chosen,rejected\n", "a.csv: holds no rows"),
        (
            "a.txt",
            LINES,
            "a.txt: unknown kind of file; expected .jsonl, .ndjson, .json, .csv, .parquet, .arrow, plain or",
        ),
        (
            "a.jsonl",
            LINES + b'{"chosen": ',
            "a.jsonl: not JSON at line 4: Expecting value (column 12); expected one object",
        ),
        ("a.jsonl", LINES + b'{"chosen": \n', "a.jsonl: not JSON at line 4: Expecting value (column 12)"),
        ("a.jsonl", b"chosen\n", "a.jsonl: not JSON at line 1: Expecting value (column 1)"),
        ("a.json", b'[{"a": 1},\n{"a": }]', "a.json: not JSON at line 2: Expecting value (column 7)"),
        ("a.json", b'{\n"data": 1}', "a.json: not JSON at line 1: Expecting property name"),
        ("a.json", b'{\n"data": [{"a": 1}]}', "a.json: is one object of lists (data); expected a list of objects"),
        (
            "a.json",
            b'{"chosen": ["a", "b"], "rejected": ["c", "d"]}',
            "a.json: is one object of lists (chosen, rejected);",
        ),
        ("a.jsonl", LINES + b"[1]\n", "a.jsonl: row 3 (line 4) is list; expected an object like {"),
        ("a.json", b"[null]", "a.json: row 0 is null; expected an object"),
        ("a.jsonl", LINES + b'{"a": "\xff"}', "a.jsonl: not UTF-8 text at line 4 (byte 0xff); save the file as UTF-8"),
        ("a.json", b'[{"a": 1},\n"\xe9"]', "a.json: not UTF-8 text at line 2 (byte 0xe9)"),
        ("a.jsonl", "{}\n".encode("utf-16"), "a.jsonl: not UTF-8 text at line 1 (byte 0xff)"),
        ("a.csv", b"a,b\n1,2\n\xe9,3\n", "a.csv: not UTF-8 text at line 3 (byte 0xe9)"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl: nested too deeply at line 1"),
        ("a.json", b"[" * 100_000, "a.json: nested too deeply at line 1"),
        ("a.jsonl", b'{"n": ' + b"9" * 5000 + b"}", "a.jsonl: not a usable number at line 1: Exceeds the limit"),
        ("a.csv", b"a,b\n1,2\n\n1,2,3\n", "a.csv: row 1 (line 4) has 3 cells, the header 2; put quotes around"),
        ("a.csv", b"a,b\n1\n", "a.csv: row 0 (line 2) has 1 cells, the header 2"),
        ("a.csv", b'a,b\n"1"x,2\n', "a.csv: not CSV at line 2: ',' expected after '\"'"),
        ("a.csv", b'a,b\n"1,2\n', "a.csv: not CSV at line 2: unexpected end of data"),
        ("a.csv", b"a;b\n1;2\n", "a.csv: the header has ';' and no comma; separate the columns by commas"),
        ("a.csv", b"a\tb\n1\t2\n", "a.csv: the header has '\\t' and no comma; separate the columns by commas"),
        ("a.csv", b"a,a\n1,2\n", "a.csv: a column name is there twice: a, a; rename one"),
        ("a.parquet", LINES, "a.parquet: damaged or cut short (Parquet magic bytes not found in footer"),
        ("a.parquet", parquet()[:-1], "a.parquet: damaged or cut short (Parquet magic bytes not found in footer"),
        ("a.parquet", b"PAR1" + b"\xff" * 50 + b"PAR1", "a.parquet: damaged or cut short ("),
        ("a.arrow", arrow()[:300], "a.arrow: damaged or cut short ("),
        ("a.arrow", LINES, "a.arrow: damaged or cut short ("),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(write, name, data, message):
    assert error_of(write(name, data)).startswith(message)


def test_a_missing_file_is_named(tmp_path):
    assert error_of(tmp_path / "none.jsonl") == f"{tmp_path / 'none.jsonl'}: no such file; check the path"


def test_a_parquet_file_with_invalid_text_is_refused(write):
    text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    stream = io.BytesIO()
    pa.parquet.write_table(pa.table({"chosen": text}), stream)
    assert "damaged or cut short (In column 0: Invalid: Invalid UTF8 sequence" in error_of(
        write("a.parquet", stream.getvalue())
    )


def test_a_parquet_file_with_a_name_that_is_no_text_is_refused(write):
    data = parquet().replace(b"rejected", b"\xd0\xd0jected")
    assert "damaged or cut short (" in error_of(write("a.parquet", data))


def test_a_parquet_file_with_a_column_twice_is_refused(write):
    stream = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["chosen", "chosen"]), stream)
    assert "a column name is there twice: chosen, chosen" in error_of(write("a.parquet", stream.getvalue()))


def test_names_and_kinds(tmp_path):
    assert kind_of(tmp_path / "a.b.Parquet") == ".parquet"
    assert kind_of(tmp_path / "a.gz") == kind_of(tmp_path / "a") == ""
    assert source_name(tmp_path / "a.b.json.zst") == "a.b"
    assert source_name(tmp_path) == tmp_path.name


def test_a_refused_file_is_closed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"good": "a"}\n' * 300, encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CurateError):
            read_pairs(str(path))
        gc.collect()
    assert not caught


def test_annotated_pairs_of_icai_are_rows_with_the_files_annotators(write):
    whole = {"metadata": {"default_annotator": "x"}, "annotators": {"x": {}}, "comparisons": [{"id": 1}, {"id": 2}]}
    shared = {"default_annotator": "x", "annotators": {"x": {}}}
    for indent in (None, 2):
        path = write("icai.json", json.dumps(whole, indent=indent).encode())
        assert rows_of(path) == [{"id": 1, **shared}, {"id": 2, **shared}]
    path = write("icai.json", json.dumps(whole | {"comparisons": [3]}).encode())
    assert error_of(path).startswith("icai.json: row 0 is int; expected an object")
    assert rows_of(write("one.json", b'{"comparisons": 3}')) == [{"comparisons": 3}]
