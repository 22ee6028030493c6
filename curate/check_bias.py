"""What the labels as a whole prefer: longer texts, the first place, lists, one model. Each beside its null, with an interval.

A finding is a function that gives each pair 1 where the label prefers the side in question, 0 where it prefers the other,
one half where both are alike and null where it does not apply; its mean is reported. The first line of a docstring is
the meaning, the last line what to do.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl

from curate.annotators import agreement_alpha, vote_table
from curate.check_columns import SIDES
from curate.check_texts import is_cut_off, refuses
from curate.intervals import Estimate, cluster_bootstrap
from curate.pairs import is_tie

CLEARLY = 0.1  # an interval that lies further than this from the null is a warning
RELIABLE = 0.667  # below it not even tentative conclusions should be drawn (Krippendorff, Content Analysis, 2004)
FEWEST_PAIRS = 30
N_FOLDS = 5
MOST_VALUES = 1000
FIRST_ROWS = 100

LIST = r"(?m)^\s*([-*•]|\d{1,3}[.)])\s"
BOLD = r"\*\*[^*\n]+\*\*|__[^_\n]+__|(?m:^#{1,6} )"
CODE = r"```"


def length_bias() -> pl.Expr:
    """The label prefers the longer response.

    note: compare every reward model with this; lengths can be balanced by sampling
    """
    return (sum_of_signs(*(pl.col(f"{side}_text").str.len_chars().cast(pl.Int64) for side in SIDES)) + 1) / 2


def list_bias() -> pl.Expr:
    """The label prefers the response with a list, where only one has any.

    note: look whether lists are what you want rewarded
    """
    return with_feature(*(pl.col(f"{side}_text").str.contains(LIST) for side in SIDES))


def bold_bias() -> pl.Expr:
    """The label prefers the response with bold text or headings, where only one has any.

    note: look whether bold text is what you want rewarded
    """
    return with_feature(*(pl.col(f"{side}_text").str.contains(BOLD) for side in SIDES))


def code_bias() -> pl.Expr:
    """The label prefers the response with a block of code, where only one has any.

    note: look whether code is what you want rewarded
    """
    return with_feature(*(pl.col(f"{side}_text").str.contains(CODE) for side in SIDES))


def refusal_bias() -> pl.Expr:
    """The label prefers the response that refuses, where only one does.

    note: look whether refusals are what you want rewarded
    """
    return with_feature(*map(refuses, SIDES))


def truncation_bias() -> pl.Expr:
    """The label prefers the response that stops within a sentence, where only one does.

    note: a label against it may say that it was cut, not that it is worse; write such responses again
    """
    return with_feature(*map(is_cut_off, SIDES))


def position_bias() -> pl.Expr:
    """The label prefers the response that was shown first.

    note: collect with the sides in random order; a model cannot see the order, so its bias is noise in the labels
    """
    return pl.col("is_chosen_first").cast(pl.Float64)


BIASES = (length_bias, list_bias, bold_bias, code_bias, refusal_bias, truncation_bias, position_bias)


def sum_of_signs(chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    """1 where the chosen side has more, -1 where it has less, 0 where both have the same."""
    return (chosen - rejected).sign()


def with_feature(chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    """1 where only the chosen side has a feature, 0 where only the rejected one has it, else null."""
    return pl.when(chosen != rejected).then(chosen.cast(pl.Float64))


def bias_severity(estimate: Estimate) -> str:
    """How bad a share is whose null is one half: none where its interval holds the null.

    >>> [bias_severity(Estimate(0.6, low, 0.7, 99, 99)) for low in (0.49, 0.51, 0.61)]
    ['none', 'note', 'warning']
    """
    if estimate.low <= 0.5 <= estimate.high:
        return "none"
    return "warning" if min(abs(estimate.low - 0.5), abs(estimate.high - 0.5)) > CLEARLY else "note"


def shortcut_severity(estimate: Estimate) -> str:
    """The same of a prediction, which is a shortcut only where it is right more often than not.

    >>> shortcut_severity(Estimate(0.3, 0.2, 0.4, 99, 99))
    'none'
    """
    return bias_severity(estimate) if estimate.low > 0.5 else "none"


def bias_findings(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The findings on at least 30 pairs that are not ties, as JSON values; `table` is that of the checks."""
    judged = table.filter(~is_tie())
    groups = judged["group"].to_numpy()
    values = judged.select(bias().cast(pl.Float64).alias(bias.__name__) for bias in BIASES)
    found = [_finding(bias.__name__, bias.__doc__ or "", values[bias.__name__].to_numpy(), groups) for bias in BIASES]
    found += [
        _finding(f"{name}_shortcut", shortcut_doc(name), right, groups, shortcut_severity)
        for name, right in shortcuts(judged)
    ]
    return [finding for finding in (*found, agreement_finding(table)) if finding]


def _finding(
    name: str, doc: str, values: np.ndarray, groups: np.ndarray, severity: Callable[[Estimate], str] = bias_severity
) -> dict[str, Any] | None:
    """The mean of the values that are not missing, beside a null of one half."""
    is_given = ~np.isnan(values)
    estimate = cluster_bootstrap(values[is_given], groups[is_given])
    if estimate is None or estimate.n_pairs < FEWEST_PAIRS:
        return None
    return _facts(name, doc, estimate, 0.5, severity(estimate))


def _facts(name: str, doc: str, estimate: Estimate, null: float, severity: str) -> dict[str, Any]:
    meaning, *_, fix = doc.strip().splitlines()
    if severity == "warning" and estimate.is_too_narrow:
        severity = "note"  # of few groups the interval looks surer than it is
    about = {"name": name, "severity": severity, "meaning": meaning, "fix": fix.partition(": ")[2]}
    return {**about, **estimate.to_dict(), "null": null, "is_too_narrow": estimate.is_too_narrow}


def agreement_finding(table: pl.DataFrame) -> dict[str, Any] | None:
    """Krippendorff's alpha of the annotators; None where no pair has two named votes."""
    alpha = agreement_alpha(vote_table(table), table["group"].to_numpy())
    doc = """The annotators agree (Krippendorff's alpha; 1 = always, 0 = as by chance).

    note: below 0.2 ask more people about each pair; see curate audit for who disagrees
    """
    if alpha is None:
        return None
    severity = "warning" if alpha.high < 2 * CLEARLY else "note" if alpha.high < RELIABLE else "none"
    return _facts("annotator_agreement", doc, alpha, 0.0, severity)


def shortcut_doc(name: str) -> str:
    """Meaning and fix of a metadata shortcut."""
    return (
        f"The label is predicted right from {name} alone, for prompts that were not counted.\n\n"
        f"note: a reward model can learn who wrote a text instead of how good it is; balance {name} over the two sides"
    )


def shortcuts(judged: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """For each column of metadata: its name, and 1 where it predicts the label of a pair, one half where it cannot, (pairs,).

    A column that both sides have (model_a and model_b, chosen_model and rejected_model) is compared between the sides. One
    that the pair has, such as category or source, can only say which place wins, so it is used where the order is known.
    """
    folds = judged["group"].hash(0).to_numpy() % N_FOLDS
    for name, sides in side_values(judged):
        is_given = sides[0].is_not_null() & sides[1].is_not_null()
        n_values = pl.concat([side.filter(is_given) for side in sides]).n_unique()
        if 1 < n_values <= min(MOST_VALUES, len(judged) // N_FOLDS):
            chosen, rejected = (side.fill_null("").to_numpy() for side in sides)
            right = predicted(chosen, rejected, folds)
            yield name, np.where(is_given.to_numpy(), right, np.nan)


def predicted(chosen: np.ndarray, rejected: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """1 where the chosen side's value wins more often in the other folds than the rejected side's, 0 where less, else 0.5."""
    _, codes = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
    sides, n_values = codes.reshape(2, -1), codes.max() + 1
    right = np.full(len(folds), 0.5)
    for fold in range(N_FOLDS):
        is_out = folds == fold
        wins, losses = (np.bincount(side[~is_out], minlength=n_values) for side in sides)
        rate = (wins + 1) / (wins + losses + 2)
        right[is_out] = (np.sign(rate[sides[0][is_out]] - rate[sides[1][is_out]]) + 1) / 2
    return right


def side_values(judged: pl.DataFrame) -> Iterator[tuple[str, tuple[pl.Series, pl.Series]]]:
    """Each column of metadata with its values for the chosen and for the rejected side, as text."""
    paths = metadata_paths(judged["extra"].head(FIRST_ROWS).to_list())
    first = judged["is_chosen_first"]
    for name, path in paths.items():
        if name.startswith("chosen_") and (other := paths.get(f"rejected_{name[7:]}")):
            yield name[7:], (_match(judged, path), _match(judged, other))
        elif name.endswith("_chosen") and (other := paths.get(f"{name[:-7]}_rejected")):
            yield name[:-7], (_match(judged, path), _match(judged, other))
        elif name.endswith("_a") and (other := paths.get(f"{name[:-2]}_b")) and first.is_not_null().any():
            a, b = _match(judged, path), _match(judged, other)
            yield name[:-2], (_where(first, a, b), _where(first, b, a))
        elif (
            first.is_not_null().any()
            and name != "position_chosen"
            and not name.endswith(("_a", "_b", "_chosen", "_rejected"))
        ):
            value = _match(judged, path)
            if value.n_unique() > 1:  # one that is the same everywhere would say what position_bias says
                yield (
                    name,
                    (
                        _where(first, value + ": first", value + ": second"),
                        _where(first, value + ": second", value + ": first"),
                    ),
                )


def _match(judged: pl.DataFrame, path: str) -> pl.Series:
    return judged["extra"].str.json_path_match(path)


def _where(condition: pl.Series, yes: pl.Series, no: pl.Series) -> pl.Series:
    """`yes` where a condition is true, `no` where it is false, null where it is null."""
    return pl.select(pl.when(condition).then(yes).when(~condition).then(no)).to_series()


def metadata_paths(extras: list[str]) -> dict[str, str]:
    """The JSON path of each column of text in the first rows' metadata, at the top or in `meta`, by name.

    >>> metadata_paths(['{"id":"x1","score":3,"meta":{"model_a":"gpt"}}'])
    {'id': '$["id"]', 'model_a': '$["meta"]["model_a"]'}
    """
    found: dict[str, str] = {}
    for row in map(json.loads, extras):
        meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
        for place, values in (("$", row), ('$["meta"]', meta)):
            names = [name for name, value in values.items() if isinstance(value, str) and '"' not in name]
            found.update({name: f'{place}["{name}"]' for name in names if name not in found})
    return found
