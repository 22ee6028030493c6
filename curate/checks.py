"""Cheap checks of the data: a tuple of functions, each one boolean column of `checks.parquet`.

Adding a check is adding a function to the tuple of its file: its name is the column, the first line of its docstring its
line in the report, the last line its severity (error, warning or note) and what to do. A check sees the table of
`check_table`: the pair table, what `curate.check_columns` adds, and `rm_ensemble.batches.token_lengths`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from curate.check_bias import bias_findings
from curate.check_columns import check_columns, chosen_first, own_scores, response_uses
from curate.check_duplicates import NEAR_CHECKS, near_columns
from curate.check_labels import LABEL_CHECKS, in_cycle
from curate.check_language import language, other_language_column
from curate.check_lengths import length_facts
from curate.check_overlap import OVERLAP_CHECKS, overlap_columns
from curate.check_personal import PERSONAL_CHECKS, personal_columns, personal_facts
from curate.check_texts import TEXT_CHECKS
from curate.options import CheckOptions, FeatureOptions
from curate.run import Progress, no_progress

Check = Callable[[], pl.Expr]

SEVERITIES = ("error", "warning", "note")
EXIT_CODES = {"none": 0, "note": 0, "warning": 3, "error": 4}  # 1 and 2 are taken: our bug, and what cannot be read
CHECKS: tuple[Check, ...] = (*LABEL_CHECKS, *TEXT_CHECKS)
ALL_CHECKS: tuple[Check, ...] = (*CHECKS, *NEAR_CHECKS, *OVERLAP_CHECKS, *PERSONAL_CHECKS)
MOSTLY = 0.5
MOST_EXAMPLES = 5


def meanings() -> dict[str, str]:
    """What each check means, in one sentence, by its column."""
    return {check.__name__: _lines(check)[0] for check in ALL_CHECKS}


def severities() -> dict[str, str]:
    """How bad what each check finds is: error (a broken pair), warning (look at it) or note."""
    return {check.__name__: _lines(check)[-1].partition(": ")[0] for check in ALL_CHECKS}


def fixes() -> dict[str, str]:
    """What to do about what each check finds, in one line."""
    return {check.__name__: _lines(check)[-1].partition(": ")[2] for check in ALL_CHECKS}


def _lines(check: Check) -> list[str]:
    return [line.strip() for line in (check.__doc__ or "").strip().splitlines()]


def check_table(
    pairs: pl.DataFrame,
    token_lengths: pl.DataFrame,
    checking: CheckOptions = CheckOptions(),
    other: pl.DataFrame | None = None,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Everything that a check looks at, one row per pair in the order of `pairs`.

    `token_lengths` has a row for each pair in the same order. `checking` says whether near-duplicates and personal data
    are looked for; `other` is the pair table of the file to compare with.
    """
    assert pairs["pair_id"].equals(token_lengths["pair_id"]), "token lengths of other pairs"
    table = check_columns(pairs)
    parts = [table, token_lengths.drop("pair_id"), response_uses(table), own_scores(pairs)]
    parts += [near_columns(table, progress)] if checking.near else []
    parts += [] if other is None else [overlap_columns(table, other, progress)]
    parts += [personal_columns(table, progress)] if checking.pii else []
    whole = pl.concat(parts, how="horizontal")
    return whole.with_columns(in_cycle(table), other_language_column(table, progress), chosen_first(pairs["extra"]))


def run_checks(table: pl.DataFrame) -> pl.DataFrame:
    """Every check whose columns are there, of every pair: `pair_id` and one boolean per check."""
    near = NEAR_CHECKS if "chosen_near" in table.columns else ()
    overlap = OVERLAP_CHECKS if "is_prompt_in_other" in table.columns else ()
    personal = PERSONAL_CHECKS if "has_email" in table.columns else ()
    found = (check().alias(check.__name__) for check in (*CHECKS, *near, *overlap, *personal))
    return table.lazy().select("pair_id", *found).collect()


def check_facts(table: pl.DataFrame, checked: pl.DataFrame, options: FeatureOptions) -> dict[str, Any]:
    """Counts, meanings, severities, fixes and examples of the checks, what the labels prefer, language and lengths, as JSON.

    `table` is that of `check_table`, `checked` that of `run_checks`.
    """
    names = [name for name in checked.columns if name != "pair_id"]
    facts = {
        "n_pairs": len(table),
        "counts": {name: int(checked[name].sum()) for name in names},
        **{what: {name: of[name] for name in names} for what, of in _about().items()},
        "examples": {name: ids for name in names if (ids := examples(checked, name))},
        "biases": bias_findings(table),
        "language": language(table),
        "max_tokens": options.max_tokens,
        "n_prompts_cut": int(table["is_prompt_cut"].sum()),
        "n_responses_cut": int(table["is_response_cut"].sum()),
        **length_facts(table),
        **personal_facts(table),
    }
    return {**facts, "warnings": _warnings(facts, len(table), options)}


def _about() -> dict[str, dict[str, str]]:
    return {"meanings": meanings(), "severities": severities(), "fixes": fixes()}


def examples(checked: pl.DataFrame, name: str) -> list[str]:
    """The ids of the first pairs that a check has found."""
    return checked.lazy().filter(name).select("pair_id").head(MOST_EXAMPLES).collect()["pair_id"].to_list()


def findings(checked: pl.DataFrame) -> pl.DataFrame:
    """One row per finding, in the order of the pairs: `pair_id`, `check` and `severity`.

    >>> table = pl.DataFrame({"pair_id": ["a", "b"], "refusal": [False, True], "empty_response": [True, True]})
    >>> findings(table).rows()
    [('a', 'empty_response', 'error'), ('b', 'refusal', 'note'), ('b', 'empty_response', 'error')]
    """
    numbered = checked.with_row_index("row")
    severity = severities()
    parts = [
        numbered.filter(name).select("row", "pair_id", check=pl.lit(name), severity=pl.lit(severity[name]))
        for name in checked.columns
        if name != "pair_id"
    ]
    return pl.concat(parts).sort("row", maintain_order=True).drop("row")


def report_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `curate check` prints: the worst severity (or "none"), the checks that found something, worst first, and the rest."""
    found = [
        {
            "check": name,
            "severity": facts["severities"][name],
            "n_pairs": count,
            "share": count / facts["n_pairs"],
            "examples": facts["examples"][name],
            "meaning": facts["meanings"][name],
            "fix": facts["fixes"][name],
        }
        for name, count in facts["counts"].items()
        if count
    ]
    found.sort(key=lambda row: (SEVERITIES.index(row["severity"]), -row["n_pairs"], row["check"]))
    severe = {row["severity"] for row in (*found, *facts["biases"])}
    worst = next((severity for severity in SEVERITIES if severity in severe), "none")
    told = ("counts", "meanings", "severities", "fixes", "examples")
    return {"severity": worst, "found": found, **{name: fact for name, fact in facts.items() if name not in told}}


def _warnings(facts: Mapping[str, Any], n_pairs: int, options: FeatureOptions) -> list[str]:
    """What the embedded default cannot judge about this data, in words."""
    warnings = []
    if options.backbone == "minilm" and facts["language"]["english_share"] < MOSTLY:
        warnings.append(
            f"{1 - facts['language']['english_share']:.0%} of a sample of the pairs are not English, and the embedded "
            "backbone knows English only: use a multilingual --backbone"
        )
    cut = facts["n_responses_cut"] / n_pairs
    if cut > MOSTLY:
        warnings.append(
            f"{cut:.0%} of the pairs have a response longer than the limit of {options.max_tokens} tokens: "
            "only its beginning is judged"
        )
    prompts = facts["n_prompts_cut"] / n_pairs
    if prompts > MOSTLY:
        warnings.append(
            f"{prompts:.0%} of the pairs have a prompt that does not fit into {options.max_tokens} tokens beside its "
            "responses: only its end is read"
        )
    return warnings
