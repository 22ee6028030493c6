"""The rows that the report shows of checks and findings follow from the facts."""

from typing import Any

from fake_run import CHECK_FACTS, fake_finding

from reports.findings import check_rows, finding_rows, findings_sentence, in_words, pair_filters


def check(name: str, n_pairs: int, severity: str = "") -> dict[str, Any]:
    return {"name": name, "n_pairs": n_pairs, **({"severity": severity} if severity else {})}


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


def test_checks_come_worst_first_then_by_count_and_quiet_ones_apart() -> None:
    found = [
        check("a", 9, "note"),
        check("b", 0, "error"),
        check("c", 1, "error"),
        check("d", 5, "warning"),
        check("e", 7, "warning"),
        check("f", 0, "note"),
    ]
    rows, quiet = check_rows({"found": found})
    assert names(rows) == ["c", "e", "d", "a"]
    assert quiet == ["b", "f"]


def test_checks_of_an_old_run_are_sorted_by_count_and_none_is_folded() -> None:
    rows, quiet = check_rows({"found": [check("a", 0), check("b", 3), check("c", 3), check("d", 4)]})
    assert (names(rows), quiet) == (["d", "b", "c", "a"], [])
    assert check_rows({"found": []}) == ([], [])


def test_an_unknown_severity_comes_last() -> None:
    rows, _ = check_rows({"found": [check("a", 9, "fatal"), check("b", 1, "note"), check("c", 5)]})
    assert names(rows) == ["b", "a", "c"]


def test_a_finding_is_written_beside_its_null() -> None:
    (row,) = finding_rows({"biases": [fake_finding("length_bias", "warning", 0.71, 0.03)]})
    assert {name: text.replace("\u00a0", " ") for name, text in row.items()} == {
        "title": "length bias",
        "severity": "warning",
        "value": "71.0 %",
        "interval": "68.0 to 74.0 %",
        "null": "50 %",
        "pairs": "119",
        "meaning": "What length_bias is.",
        "fix": "what to do about length_bias",
    }


def test_agreement_of_annotators_is_no_share() -> None:
    (row,) = finding_rows({"biases": [fake_finding("annotator_agreement", "note", 0.03, 0.05, null=0.0)]})
    assert (row["value"], row["interval"], row["null"]) == ("0.03", "\u22120.02 to 0.08", "0.00")


def test_an_interval_over_few_prompts_says_so() -> None:
    narrow = {**fake_finding("list_bias", "note", 0.5, 0.1), "n_groups": 7, "is_too_narrow": True}
    (row,) = finding_rows({"biases": [narrow]})
    assert row["interval"].replace("\u00a0", " ") == "40.0 to 60.0 %"
    assert row["caveat"] == "7 prompts only: the interval is too narrow."


def test_warnings_come_first_and_are_counted() -> None:
    rows = finding_rows(CHECK_FACTS)
    assert [row["severity"] for row in rows] == ["warning", "warning", "note", "note"]
    assert [row["title"] for row in rows][0::2] == ["length bias", "list bias"]
    assert findings_sentence(rows) == "2 of 4 findings about the data as a whole are warnings."
    assert findings_sentence(rows[:1]) == "The one finding about the data as a whole is a warning."
    assert findings_sentence(rows[1:3]) == "1 of 2 findings about the data as a whole is a warning."
    assert findings_sentence(rows[2:]) == "None of 2 findings about the data as a whole is a warning."


def test_a_run_without_findings_has_no_rows() -> None:
    assert finding_rows({}) == finding_rows({"biases": []}) == []


def test_columns_keep_their_names() -> None:
    assert in_words("model_name_shortcut") == "shortcut by model_name"
    assert in_words("position_bias") == "position bias"


def test_filters_name_votes_and_checks_with_what_is_shown() -> None:
    found = [check("a_b", 9, "note"), check("c", 1, "error"), check("d", 0, "error")]
    facts = {
        "checks": {"found": found},
        "suspicious": [{"found_by": ["votes"]}, {"found_by": ["votes", "a_b"]}],
        "examples": [{"found_by": ["c", "a_b"]}],
    }
    assert pair_filters(facts) == {"votes": "votes (2 shown)", "c": "c (1 shown)", "a_b": "a b (2 shown)"}
    assert pair_filters({}) == {}
