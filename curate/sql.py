"""SQL that is shut in: conditions of policies and questions over a run, which read the tables they are given and nothing else.

Three doors, each of which is enough against most tries: the database reads no file, network, extension or Python variable
and its settings are locked; only one SELECT statement is run; and no table function outside TABLE_FUNCTIONS is called.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from curate.errors import CurateError

if TYPE_CHECKING:
    import duckdb

TABLES = {"pairs": "load", "checks": "check", "strength": "strength", "decisions": "decide"}  # and the stage of each
TABLE_FUNCTIONS = ("unnest", "range", "generate_series", "repeat", "json_each", "json_tree", "histogram")

CLOSED = {  # https://duckdb.org/docs/2.0/operations_manual/securing_duckdb/overview.html
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # a table name is never a Python variable
    "temp_directory": "",  # nothing is spilled into the working folder
    "errors_as_json": "true",
}


def sandbox(**settings: str) -> "duckdb.DuckDBPyConnection":
    """A database that reads no file, network or Python variable, and whose settings can no longer be changed."""
    import duckdb

    connection = duckdb.connect(config={**CLOSED, **settings})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def query(tables: Mapping[str, pl.LazyFrame | pl.DataFrame], statement: str) -> pl.DataFrame:
    """The answer of one SELECT statement over the tables, which are views by their names.

    Only tables that the statement names are read, and of a lazy table only the columns. Refused with a CurateError: a
    second statement, any statement but SELECT, whatever reaches outside the tables, and an SQL error, with its position.

    >>> pairs = pl.DataFrame({"pair_id": ["a", "b", "c"], "source": ["x", "x", "y"]})
    >>> query({"pairs": pairs}, "select source, count(*) as n from pairs group by source order by source").rows()
    [('x', 2), ('y', 1)]
    """
    import duckdb

    _refuse_broken_text(statement)
    named = {name: tables[name] for name in named_tables(statement, tables) or tables}
    with sandbox() as connection:
        for name, table in named.items():
            connection.register(name, table)
        try:
            _refuse_other_statements(connection, statement)
            answer = connection.sql(statement).to_arrow_table()
        except duckdb.Error as error:
            message = _located(_with_position(connection, statement, error), statement, 0)
            raise CurateError(f"{statement!r}: {message}; {_available(named)}") from None
    names = _unique(answer.column_names)
    try:
        return _plain_integers(pl.DataFrame(answer.rename_columns(names)))
    except pl.exceptions.PolarsError as error:
        message = " ".join(str(error).split()).split(". ")[0]
        raise CurateError(
            f"{statement!r}: a column of the answer has no type here ({message}): cast it, x::varchar"
        ) from None


def named_tables(statement: str, tables: Iterable[str] = TABLES) -> list[str]:
    """The tables whose names occur in a statement, wherever that is.

    >>> named_tables("select * from Strength join pairs using (pair_id)")
    ['pairs', 'strength']
    """
    words = set(re.findall(r"\w+", statement.lower()))
    return [name for name in tables if name in words]


def evaluate_sql(table: pl.DataFrame, expressions: list[tuple[str, str]]) -> pl.DataFrame:
    """One column per SQL expression over the table's columns, in row order.

    `expressions` are (expression, place) pairs; the columns are named "0", "1", ... A bad expression is refused with
    the place, the SQL error with its position, and the columns there are. Equal tables give equal answers: one thread
    adds floats in one order, and random() starts from one seed.

    >>> evaluate_sql(pl.DataFrame({"x": [1, 5]}), [("x > 2", "rule 1"), ("avg(x) over ()", "rule 2")]).rows()
    [(False, 3.0), (True, 3.0)]
    """
    columns = []
    with sandbox(threads="1") as connection:
        connection.register("pair", table.with_row_index("_row"))
        for i, (expression, place) in enumerate(expressions):
            _refuse_more_than_an_expression(connection, expression, place, table.columns)
            columns.append(_column(connection, expression, place, table).alias(str(i)))
    return pl.DataFrame(columns)


def _column(connection: "duckdb.DuckDBPyConnection", expression: str, place: str, table: pl.DataFrame) -> pl.Series:
    import duckdb

    before = "SELECT ("
    statement = f"{before}{expression}\n) AS value FROM pair ORDER BY _row"
    connection.execute("SELECT setseed(0.5)").fetchall()
    try:
        value = connection.sql(statement).to_arrow_table()
    except duckdb.Error as error:
        message = _located(_with_position(connection, statement, error), expression, len(before))
        raise CurateError(f"{place}: {expression!r}: {message}; columns: {', '.join(table.columns)}") from None
    if value.column_names != ["value"] or len(value) != len(table):
        raise CurateError(f"{place}: {expression!r}: a condition is one expression with one value per pair")
    return pl.DataFrame(value)["value"]


# What is refused before it is run


def _refuse_other_statements(connection: "duckdb.DuckDBPyConnection", statement: str) -> None:
    """Refuses more or less than one statement, any type but SELECT, and table functions that are not in the list."""
    import duckdb

    found = connection.extract_statements(statement)
    if len(found) != 1:
        raise CurateError(f"{statement!r}: {len(found)} SQL statements; expected one select statement")
    if found[0].type != duckdb.StatementType.SELECT:
        kind = found[0].type.name
        raise CurateError(f"{statement!r}: a statement of type {kind}; only select is answered, and nothing is written")
    _refuse_table_functions(_parsed(connection, statement), repr(statement))


def _refuse_more_than_an_expression(
    connection: "duckdb.DuckDBPyConnection", expression: str, place: str, columns: list[str]
) -> None:
    """Refuses what is not one expression where it stands alone, so that no parenthesis can close the one around it."""
    _refuse_broken_text(expression)
    before = "SELECT "
    parsed = _parsed(connection, f"{before}{expression}\n")
    if parsed["error"]:
        found = {"exception_message": parsed["error_message"], "position": parsed.get("position")}
        message = _located(f"Parser Error: {json.dumps(found)}", expression, len(before))
        raise CurateError(
            f"{place}: {expression!r}: a condition is one expression: {message}; columns: {', '.join(columns)}"
        )
    plain = _parsed(connection, f"{before}0\n")["statements"][0]["node"]
    node = parsed["statements"][0]["node"]
    selected = node.get("select_list", [])
    is_plain = len(parsed["statements"]) == 1 and {**node, "select_list": None} == {**plain, "select_list": None}
    if not is_plain or len(selected) != 1 or selected[0].get("alias"):
        raise CurateError(
            f"{place}: {expression!r}: a condition is one expression, without select, from, as, a comma or a semicolon"
        )
    _refuse_table_functions(parsed, f"{place}: {expression!r}")


def _refuse_broken_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CurateError(f"{text!r}: character {error.start + 1} is no Unicode text; write it as UTF-8") from None


def _parsed(connection: "duckdb.DuckDBPyConnection", statement: str) -> dict[str, Any]:
    """The syntax tree of select statements, or `error` with its message and position."""
    ((tree,),) = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
    try:
        parsed: dict[str, Any] = json.loads(tree)
    except RecursionError:
        raise CurateError(f"{statement[:60]!r} ...: nested too deeply") from None
    return parsed


def _refuse_table_functions(parsed: Mapping[str, Any], what: str) -> None:
    if parsed["error"]:
        raise CurateError(f"{what}: {' '.join(parsed['error_message'].split())}; only a plain select is answered")
    for node in _nodes(parsed):
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            if name not in TABLE_FUNCTIONS:
                raise CurateError(
                    f"{what}: {name} is not allowed: a query reads the tables of its run only "
                    f"(table functions: {', '.join(TABLE_FUNCTIONS)})"
                )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON value, however deep."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


# What the messages say


def _with_position(connection: "duckdb.DuckDBPyConnection", statement: str, error: Exception) -> str:
    """The text of an error with its position: DuckDB 2.0 leaves that out of what a relation raises."""
    import duckdb

    try:
        connection.execute(statement).fetchall()
    except duckdb.Error as located:
        return str(located)
    return str(error)


def _located(error: str, text: str, n_before: int) -> str:
    """The SQL error in one line, its position counted in `text`, which begins `n_before` bytes into the statement."""
    kind, _, rest = error.partition(": ")
    try:
        found = json.loads(rest)
    except ValueError:
        found = {"exception_message": rest}
    message = found["exception_message"]
    if found.get("type") == "Table" or found.get("error_subtype") == "COLUMN_NOT_FOUND":
        message = message.split("\n")[0]  # without its guesses, which name tables of the system and our row number
    message = message.split("\n\tCandidate functions")[0]
    if '"_row"' in message:
        message, found = "an aggregate has one value for all pairs; give it a window, as in avg(x) over ()", {}
    position = found.get("position")
    place = "" if position is None else position_in(text, int(position) - n_before)
    return f"{kind}{place}: {' '.join(message.split())}"


def position_in(text: str, n_bytes: int) -> str:
    """Where the character that follows the first `n_bytes` of a text is, in words, counted from 1.

    >>> position_in("kind = 'é' and nope", 16), position_in("a\\n  or b", 7), position_in("a >", 3)
    (' at character 16', ' at line 2, character 6', ' at its end')
    """
    encoded = text.encode()
    if n_bytes >= len(encoded.rstrip()):
        return " at its end"
    before = encoded[: max(n_bytes, 0)].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return f" at line {line}, character {column}" if "\n" in text.strip() else f" at character {column}"


def _available(tables: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> str:
    columns = (f"{name} ({', '.join(table.collect_schema().names())})" for name, table in tables.items())
    return f"columns: {'; '.join(columns)}"


# What comes back


def _unique(names: list[str]) -> list[str]:
    """Column names with a number where one occurs again.

    >>> _unique(["pair_id", "kind", "pair_id"])
    ['pair_id', 'kind', 'pair_id_1']
    """
    taken: list[str] = []
    for name in names:
        n, unique = 0, name
        while unique in taken:
            n, unique = n + 1, f"{name}_{n + 1}"
        taken.append(unique)
    return taken


def _plain_integers(table: pl.DataFrame) -> pl.DataFrame:
    """Sums of integers, which DuckDB gives as decimals of 38 digits, as 64-bit integers where they fit."""
    for column in table:
        if isinstance(column.dtype, pl.Decimal) and column.dtype.scale == 0:
            whole = column.cast(pl.Int64, strict=False)
            if whole.null_count() == column.null_count():
                table = table.with_columns(whole)
    return table
