"""What kind of pair is it: wrong, ambiguous, hard, normal or easy (METHODS.md section 3), from the votes and their worth."""

from math import inf, log

import polars as pl

KINDS = {  # from most to least doubtful
    "wrong": "the members agree against the label",
    "ambiguous": "the votes do not settle it",
    "hard": "the members disagree widely",
    "normal": "the votes are for the label",
    "easy": "the votes are firmly for the label",
}
UNSETTLED, FIRM = 0.6, 0.9  # chance that the preferred response is the better one: below, above
UNCALIBRATED = (0.25, 2.0)  # strength_mean of the two where nothing is calibrated; the median |difference| is 1
CONFIDENCE = 0.95  # with which the members' spread is at least what is counted


def kind(slope: float | None) -> pl.Expr:
    """wrong, ambiguous, hard, normal or easy; `slope` turns strength into the chance to be better, sigma(slope x mean).

    The spread of few members is uncertain, so what counts is its lower 95 % bound (chi-square with n - 1 degrees).

    - hard: members differ by more than the mean, and by enough that single members take sides;
    - ambiguous: the mean is too near zero to prefer a side (below 60 %), or against the label but not firmly enough;
    - wrong: the votes are against the label and label_prob is below one half;
    - easy: the votes are for the label by 90 % or more; normal: by less.

    >>> rows = {"strength_mean": [2.0, 0.1, -2.0], "strength_std": [0.1, 0.1, 0.1], "n_votes": [10, 10, 10]}
    >>> pl.DataFrame({**rows, "label_prob": [0.99, 0.8, 0.1]}).select(kind(2.0))["kind"].to_list()
    ['easy', 'ambiguous', 'wrong']
    """
    near, firm = thresholds(slope)
    mean, spread = pl.col("strength_mean"), spread_at_least()
    is_split = spread > mean.abs()
    return (
        pl.when(is_split & (spread >= near))
        .then(pl.lit("hard"))
        .when(is_split | (mean.abs() < near))
        .then(pl.lit("ambiguous"))
        .when((mean < 0) & (pl.col("label_prob").fill_null(1.0) < 0.5))
        .then(pl.lit("wrong"))
        .when(mean < 0)
        .then(pl.lit("ambiguous"))
        .when(mean >= firm)
        .then(pl.lit("easy"))
        .otherwise(pl.lit("normal"))
        .alias("kind")
    )


def thresholds(slope: float | None) -> tuple[float, float]:
    """The strength_mean from which a side is preferred, and firmly; infinite for votes that say nothing.

    >>> [round(limit, 2) for limit in thresholds(1.0)], thresholds(0.0), thresholds(None)
    ([0.41, 2.2], (inf, inf), (0.25, 2.0))
    """
    if slope is None:
        return UNCALIBRATED
    near, firm = ((log(chance / (1 - chance)) / slope if slope > 0 else inf) for chance in (UNSETTLED, FIRM))
    return near, firm


def spread_at_least() -> pl.Expr:
    """The lower bound of the members' standard deviation; 0 for a pair with fewer than two votes."""
    from scipy.stats import chi2

    def bound(n_votes: pl.Series) -> pl.Series:
        sizes = n_votes.unique().drop_nulls()
        factors = {n: (n / chi2.ppf(CONFIDENCE, n - 1)) ** 0.5 for n in sizes.to_list() if n > 1}
        return n_votes.replace_strict(factors, default=0.0, return_dtype=pl.Float64)

    return pl.col("strength_std").fill_null(0.0) * pl.col("n_votes").map_batches(bound, return_dtype=pl.Float64)
