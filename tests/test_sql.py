"""Hostile conditions and queries, tried against each of the doors; and the answers, positions and columns of honest ones."""

import json
from contextlib import suppress

import duckdb
import polars as pl
import pytest
from fake_run import fake_run

from curate import pipeline
from curate.answer import json_row
from curate.errors import CurateError
from curate.run import Run
from curate.sql import TABLE_FUNCTIONS, evaluate_sql, position_in, query, sandbox

PAIRS = pl.DataFrame({"pair_id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0], "votes": [[1.0], None, [0.0, 1.0]]})
TABLES = {"pairs": PAIRS.lazy(), "checks": PAIRS.select("pair_id", is_empty=pl.col("x") > 2)}


@pytest.fixture
def secret(tmp_path):
    """A file that nothing may read, and the folder in which nothing may appear."""
    file = tmp_path / "secret.csv"
    file.write_text("word\nswordfish\n")
    return file


OUTSIDE = [
    "from read_text('{}')",
    "from read_blob('{}')",
    "from read_csv('{}')",
    "from read_csv_auto('{}')",
    "from sniff_csv('{}')",
    "from read_json('{}')",
    "from read_parquet('{}')",
    "from read_duckdb('{}')",
    "from parquet_metadata('{}')",
    "from glob('{}')",
    "from '{}'",
    "from read_csv('https://example.org/x.csv')",
    "from 'https://example.org/x.csv'",
]
ELSEWHERE = [
    "from duckdb_settings()",
    "from query('select 1')",
    "from query_table('pairs')",
    "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "from duckdb_secrets()",
    "from enable_logging()",
    "from register_external_resource_type('a', 'b')",
]
STATEMENTS = [
    "copy pairs to '{}.out'",
    "copy (select 1) to '{}.out'",
    "copy pairs from '{}'",
    "attach '{}.db'",
    "attach ':memory:' as other",
    "install httpfs",
    "load httpfs",
    "load json",
    "pragma version",
    "pragma database_list",
    "set threads = 4",
    "set variable a = 1",
    "reset threads",
    "export database '{}.out'",
    "import database '{}.out'",
    "create table t as select 1",
    "create view v as select 1",
    "create macro f(a) as a",
    "insert into pairs values ('d', 4, null)",
    "update pairs set x = 0",
    "delete from pairs",
    "drop view pairs",
    "alter view pairs rename to other",
    "call pragma_version()",
    "explain analyze select 1",
    "prepare p as select 1",
    "begin",
    "checkpoint",
    "vacuum",
]


@pytest.mark.parametrize("source", OUTSIDE)
def test_the_database_itself_reads_no_file_and_no_network(source, secret):
    with sandbox() as connection, pytest.raises((duckdb.PermissionException, duckdb.CatalogException)):
        connection.execute("select * " + source.format(secret)).fetchall()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_database_itself_leaves_no_file(statement, secret):
    with sandbox() as connection:
        connection.register("pairs", PAIRS)
        with suppress(duckdb.Error):
            connection.execute(statement.format(secret)).fetchall()
        for name in (
            "enable_external_access = true",
            "python_enable_replacements = true",
            "lock_configuration = false",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(f"set {name}").fetchall()
    assert [file.name for file in secret.parent.iterdir()] == [secret.name]


@pytest.mark.parametrize("source", OUTSIDE + ELSEWHERE)
def test_neither_a_query_nor_a_condition_reaches_outside_its_tables(source, secret):
    source = source.format(secret)
    for statement in (
        f"select * {source}",
        f"select * from pairs where exists (select 1 {source})",
        f"(select 1 {source})",
    ):
        with pytest.raises(CurateError, match="is not allowed|Permission Error|Catalog Error"):
            query(TABLES, statement)
    with pytest.raises(CurateError, match="is not allowed|Permission Error|Catalog Error"):
        evaluate_sql(PAIRS, [(f"x > (select count(*) {source})", "rule 1")])


@pytest.mark.parametrize("statement", STATEMENTS)
def test_only_select_is_answered(statement, secret):
    with pytest.raises(CurateError, match="only select is answered|SQL statements"):
        query(TABLES, statement.format(secret))
    for second in (f"select 1; {statement}", f"{statement}; select 1", f"select 1;\n;{statement};"):
        with pytest.raises(CurateError, match="expected one select statement"):
            query(TABLES, second.format(secret))
    with pytest.raises(CurateError, match="rule 1: .*a condition is one expression"):
        evaluate_sql(PAIRS, [(f"true; {statement.format(secret)}", "rule 1")])
    assert [file.name for file in secret.parent.iterdir()] == [secret.name]


@pytest.mark.parametrize(
    "statement",
    [
        "with gone as (delete from pairs returning *) select * from gone",
        "with new as (insert into pairs values ('d', 4, null) returning *) select * from new",
        "select 1 into outfile 'x'",
        "select * from (copy pairs to 'x')",
        "",
        "-- nothing",
        "select 1; select 2",
        "select getenv('HOME')",
        "select 1::pointer",
    ],
)
def test_other_tries_are_refused(statement):
    with pytest.raises(CurateError):
        query(TABLES, statement)


SECRET_TABLE = pl.DataFrame({"word": ["swordfish"]})


def test_python_variables_are_no_tables():
    hidden = SECRET_TABLE.clone()
    with duckdb.connect() as opened:
        assert len(opened.execute("select * from hidden").fetchall()) == len(hidden)  # what is to be closed
    with sandbox() as connection, pytest.raises(duckdb.CatalogException):
        connection.execute("select * from hidden").fetchall()
    for name in ("hidden", "SECRET_TABLE", "tables", "named"):
        with pytest.raises(CurateError, match=f"Table with name {name} does not exist"):
            query(TABLES, f"select * from {name}")
        with pytest.raises(CurateError, match=f"Table with name {name} does not exist"):
            evaluate_sql(PAIRS, [(f"x > (select count(*) from {name})", "rule 1")])


@pytest.mark.parametrize(
    "condition",
    [
        "true) AS value FROM pair; COPY pair TO 'x' --",
        "true) AS value FROM pair --",
        "true) AS value FROM pair /*",
        "1=1) AS value, (select 1",
        "x > 1) or (x < 1",
        "true) from pair union all select (true",
        "true) from pair where (x > 1",
        "true -- \n) , (1",
        "true /* \n",
        "true, false",
        "x > 1 as value",
        "value: x > 1",
        "true from pair",
        "true where x > 1",
        "true limit 1",
        "true order by 1",
        "true union select false",
        "distinct x > 1",
        "select true",
        "true;",
        "true; select 2",
        "",
        "  ",
        "*",
        "columns('x|votes') is null",
        "unnest([true, false])",
        "true window w as ()",
        "?",
        "x > 1\0",
        "x = '\ud800'",
        "not " * 900 + "true",
        "count(*) > 1",
    ],
)
def test_a_condition_is_one_expression(condition):
    with pytest.raises(CurateError):
        evaluate_sql(PAIRS, [(condition, "rule 1")])


def test_conditions_that_look_odd_and_are_one_expression():
    conditions = [
        "x > 1 -- and so on",
        "pair_id = 'a; b)'",
        "x > (select avg(x) from pair)",
        "(x > 1) or (x < 2)",
        "null",
    ]
    conditions += ["percent_rank() over (order by x) < 0.5", "x in (from range(3))", "/* ( */ x > 1"]
    found = evaluate_sql(PAIRS, [(condition, "rule 1") for condition in conditions])
    assert found["0"].to_list() == [False, True, True]
    assert found["1"].to_list() == [False] * 3
    assert found["2"].to_list() == [False, False, True]
    assert found["5"].to_list() == [True, False, False]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "nope > 1",
            "^rule 1: 'nope > 1': Binder Error at character 1: .*\"nope\" not found.*; columns: pair_id, x, votes$",
        ),
        ("x > 1 and nope > 2", "at character 11: "),
        ("pair_id = 'é' and nope > 2", "at character 19: "),
        ("x > 1\n  and nope > 2", "at line 2, character 7: "),
        ("x > )", "at character 5: syntax error"),
        ("nosuch(x) > 2", "Catalog Error at character 1: .*nosuch does not exist"),
        ("pair_id::int > 2", "Conversion Error at character"),
        ("avg(x) > 1", "an aggregate has one value for all pairs; give it a window"),
    ],
)
def test_an_error_says_where_in_the_condition_and_which_columns_there_are(condition, message):
    with pytest.raises(CurateError, match=message) as refused:
        evaluate_sql(PAIRS, [(condition, "rule 1")])
    assert "\n" not in str(refused.value)
    assert "_row" not in str(refused.value)


def test_an_error_of_a_query_says_where_and_which_columns_there_are():
    with pytest.raises(CurateError, match=r"at character 8: .*; columns: pairs \(pair_id, x, votes\)$"):
        query(TABLES, "select nope from pairs")
    with pytest.raises(
        CurateError, match=r"at line 2, character 6: .*columns: pairs \(.*\); checks \(pair_id, is_empty\)$"
    ):
        query(TABLES, "select 1\nfrom nope")


def test_answers():
    assert query(TABLES, "select count(*) as n, sum(1) as s from pairs").rows() == [(3, 3)]
    assert query(TABLES, "from Pairs select x order by x desc limit 1;").rows() == [(3.0,)]
    joined = query(TABLES, "select * from pairs p join checks c on p.pair_id = c.pair_id order by x")
    assert joined.columns == ["pair_id", "x", "votes", "pair_id_1", "is_empty"]
    assert joined["votes"].to_list() == PAIRS["votes"].to_list()
    assert query(TABLES, "describe pairs").height == 3
    assert query(TABLES, "show tables")["name"].to_list() == ["checks", "pairs"]
    assert query(TABLES, "with few as (select * from pairs where x < 3) select max(x) from few").item() == 2.0
    assert query(TABLES, "select x from pairs where x > 9").schema == {"x": pl.Float64}
    with pytest.raises(CurateError, match="has no type here.*cast it"):
        query(TABLES, "select interval 1 day")


def test_only_tables_that_the_statement_names_are_read():
    def fail(table):
        raise AssertionError(table)

    unread = PAIRS.lazy().map_batches(fail, schema=PAIRS.schema)
    assert query({"pairs": PAIRS, "checks": unread}, "select count(*) from pairs").item() == 3
    assert query({"checks": unread}, "select 1").item() == 1


def test_every_table_function_that_is_allowed_reads_nothing():
    with sandbox() as connection:
        known = "select distinct function_name from duckdb_functions() where function_type like 'table%'"
        names = {name for (name,) in connection.execute(known).fetchall()}
    assert set(TABLE_FUNCTIONS) <= names
    assert not [
        name for name in TABLE_FUNCTIONS if name.startswith(("read", "duckdb", "parquet", "pragma", "query", "scan"))
    ]


def test_positions_are_counted_in_characters_from_one():
    assert position_in("abc", 0) == position_in("abc", -3) == " at character 1"
    assert position_in("é b", 3) == " at character 3"
    assert position_in("a\nb", 2) == " at line 2, character 1"


def test_json_rows_hold_what_json_can():
    row = {"a": float("inf"), "b": {"c": [float("nan"), 1]}, "d": None, "e": True}
    assert json_row(row) == {"a": None, "b": {"c": [None, 1]}, "d": None, "e": True}


# The command


@pytest.fixture
def run(tmp_path) -> Run:
    return fake_run(tmp_path / "run")


COUNT = "select action, count(*) as n from decisions join strength using (pair_id) group by action order by action"


def test_a_run_answers_in_python_and_as_a_table_and_as_json(run, command):
    counts = dict(run.decisions["action"].value_counts().rows())
    assert dict(run.sql(COUNT).rows()) == counts
    code, out, _ = command("sql", run.path, COUNT)
    assert code == 0
    assert [line.split() for line in out.splitlines()][1:] == [[name, str(counts[name])] for name in sorted(counts)]
    code, out, _ = command("sql", run.path, COUNT, "--json")
    assert {row["action"]: row["n"] for row in json.loads(out)} == counts


def test_an_answer_is_written_whole_and_never_over_another_file_or_into_the_run(run, command, tmp_path):
    for name, read in (("a.csv", pl.read_csv), ("a.parquet", pl.read_parquet), ("a.jsonl", pl.read_ndjson)):
        assert command("sql", run.path, COUNT, "--to", tmp_path / name)[0] == 0
        assert read(tmp_path / name).rows() == run.sql(COUNT).rows()
        code, _, err = command("sql", run.path, "select 1", "--to", tmp_path / name)
        assert (code, "exists; choose another --to, or add --overwrite" in err) == (2, True)
    assert command("sql", run.path, "select 1 as one", "--to", tmp_path / "a.csv", "--overwrite")[0] == 0
    assert (tmp_path / "a.csv").read_text() == "one\n1\n"
    before = sorted(tmp_path.iterdir())
    for to, message in (
        (tmp_path / "b.csv", "no place for the lists of prompt"),
        (tmp_path / "b.xls", "unknown kind of file"),
        (run.path / "pairs.parquet", "inside the run folder"),
    ):
        code, _, err = command("sql", run.path, "select pair_id, prompt from pairs", "--to", to, "--overwrite")
        assert (code, message in err) == (2, True)
    assert command("sql", run.path, "select nope from pairs", "--to", tmp_path / "a.csv", "--overwrite")[0] == 2
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "a.csv").read_text() == "one\n1\n"


def test_texts_of_the_data_cannot_steer_the_terminal_and_long_answers_are_cut(run, command):
    _, out, _ = command("sql", run.path, "select e'[bold]\\x1b[31mred\\nline' as a, repeat('y', 500) as b")
    assert "\x1b" not in out
    assert "[bold]\\x1b[31mred line" in out
    assert "y" * 59 + "…" in out
    _, out, _ = command("sql", run.path, "select pair_id from pairs")
    assert "100 of 120 rows" in out


def test_a_table_that_is_not_there_yet_says_which_stage_to_run(tmp_path):
    early = fake_run(tmp_path / "early", stages=("load", "check"))
    assert pipeline.sql(early, "show tables")["name"].to_list() == ["checks", "pairs"]
    with pytest.raises(CurateError, match="run first: curate decide"):
        early.sql("select * from decisions")
