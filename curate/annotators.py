"""Several annotators per pair: how far they agree, how reliable each one is, and what their votes say about a label.

The sides of a pair are exchangeable, so nothing here may depend on which response stands first: the model is one coin per
annotator (Dawid and Skene 1979 as simplified in arXiv 1406.3824), the chance to prefer the better response, whichever side
it is on, and both sides are equally likely to be the better one before anybody has looked.

Everywhere `votes` is the table of `vote_table` and `better_log_odds` is (pairs,): the ensemble's log-odds that the chosen
response is the better one, **before the given label is looked at** (logit of sigma(slope x strength_mean) out of fold, see
`Calibration`), never logit(label_prob), which holds the label and so the votes a second time. 0 or NaN = it says nothing.
"""

from typing import Any

import numpy as np
import polars as pl

from curate.intervals import Estimate, cluster_bootstrap

PRIOR_VOTES = (
    16.0  # log loss of held-out votes of ukp_convarg, even sides: .548 at 2, .526 at 8, .521 at 16, .519 at 32
)
START = 0.75  # any rate above one half: says that annotators are rather right than wrong, which no vote can show
TOLERANCE = 1e-6
MOST_STEPS = 1000
PROB_LIMITS = (
    0.001,
    0.999,
)  # as in label_prob_from_agreement: votes on an unclear pair are less independent than assumed
TYPICAL_LIMITS = (0.51, 0.99)

FEWEST_VOTES = 10  # with fewer no annotator can look reversed once the number of annotators is allowed for
FALSE_DISCOVERIES = 0.05
MOST_DOUBTFUL = 20
N_BINS = 20  # of the agreement of annotators


def vote_table(pairs: pl.DataFrame) -> pl.DataFrame:
    """One row per pair and named annotator: `pair` (position in the table), `annotator`, `vote` (1 = for the label, 0).

    Votes without an annotator and ties are left out, see `left_out`. A graded vote counts for its side; of several votes
    of one annotator on one pair the majority counts, once.

    >>> pairs = pl.DataFrame({"votes": [[1.0, 0.5, 0.2], None, [1.0]], "annotators": [["ann", "bob", "cy"], None, None]})
    >>> vote_table(pairs).rows()
    [(0, 'ann', 1.0), (0, 'cy', 0.0)]
    """
    sides = _named(pairs).group_by("pair", "annotator").agg(pl.col("side").sum().sign()).filter(pl.col("side") != 0)
    return sides.sort("pair", "annotator").select("pair", "annotator", vote=(pl.col("side") + 1) / 2)


def left_out(pairs: pl.DataFrame) -> dict[str, int]:
    """How many votes there are, and how many `vote_table` leaves out for want of a name or of a side, or as repeated.

    >>> left_out(pl.DataFrame({"votes": [[1.0, 0.5], [0.0]], "annotators": [["ann", "bob"], None]}))
    {'n_votes': 3, 'n_unnamed': 1, 'n_ties': 1, 'n_repeated': 0}
    """
    named = _named(pairs)
    n_votes, n_ties = int(pairs["votes"].list.len().sum()), int((named["side"] == 0).sum())
    n_repeated = len(named) - n_ties - len(vote_table(pairs))
    return {"n_votes": n_votes, "n_unnamed": n_votes - len(named), "n_ties": n_ties, "n_repeated": n_repeated}


def _named(pairs: pl.DataFrame) -> pl.DataFrame:
    """`pair`, `annotator` and `side` (1 for the label, -1 against it, 0 tie) of each vote that has an annotator."""
    columns = pairs.select("votes", "annotators").cast({"votes": pl.List(pl.Float64), "annotators": pl.List(pl.String)})
    is_named = pl.col("votes").list.len().gt(0) & pl.col("votes").list.len().eq(pl.col("annotators").list.len())
    given = columns.with_row_index("pair").filter(is_named).explode("votes", "annotators")
    side = (pl.col("votes").fill_null(0.5) - 0.5).sign().cast(pl.Int32)
    return given.select("pair", annotator="annotators", side=side).drop_nulls("annotator")


def nominal_alpha(counts: np.ndarray) -> float:
    """Krippendorff's alpha of nominal values: 1 = all agree, 0 = as by chance, below 0 = systematic disagreement.

    `counts` is (units, values): how many observers gave each value to each unit; units of fewer than two observers are
    not compared. NaN where nothing can be compared or only one value was ever given. (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability", C.)

    >>> round(nominal_alpha(np.array([[2, 0], [0, 2], [1, 1]])), 3)   # 1 - (2/6) / (18/30)
    0.444
    """
    compared = counts[counts.sum(axis=1) >= 2].astype(np.float64)  # (units, values)
    sizes, totals = compared.sum(axis=1), compared.sum(axis=0)
    n = totals.sum()
    expected = n**2 - (totals**2).sum()
    if expected == 0:
        return float("nan")
    observed = ((sizes**2 - (compared**2).sum(axis=1)) / (sizes - 1)).sum()
    return float(1 - (n - 1) * observed / expected)


def agreement_alpha(votes: pl.DataFrame, groups: np.ndarray) -> Estimate | None:
    """Krippendorff's alpha of the annotators with its interval over prompt groups; None without two votes on one pair.

    `groups` is (pairs,). Every pair counts once in either order of its sides: with the chosen response always first,
    chance agreement would be that of the labels and alpha would punish it. (Chance disagreement is then one half, and
    the interval that of the share of the other votes which contradict a vote, (votes,).)
    """
    pair, side = _sides(votes)
    both, total = np.bincount(pair, minlength=len(groups)), np.bincount(pair, side, minlength=len(groups))
    counts = np.stack([both + total, both - total], axis=1) / 2  # (pairs, values): for and against the label
    compared = both[pair] >= 2
    against = np.where(side > 0, counts[pair, 1], counts[pair, 0])[compared] / (both[pair][compared] - 1)
    share = cluster_bootstrap(against, groups[pair][compared])
    if share is None:
        return None
    expected = len(against) / (2 * len(against) - 1)
    value = nominal_alpha(np.concatenate([counts, counts[:, ::-1]]))
    n_pairs = int((both >= 2).sum())
    return Estimate(value, 1 - share.high / expected, 1 - share.low / expected, n_pairs, share.n_groups)


def reliability(votes: pl.DataFrame, better_log_odds: np.ndarray, prior_votes: float = PRIOR_VOTES) -> pl.DataFrame:
    """The chance that each annotator prefers the better response: `annotator`, `n_votes`, `reliability`, by name.

    Expectation-maximisation of the one-coin model; the ensemble is the prior of each pair. `n_votes` counts the votes
    that something can be held against: another vote on the pair, or the ensemble. One rate for all is fitted first; each
    annotator then starts as a typical one of `prior_votes` votes, since half of all crowd workers cast a handful.
    Without any vote to compare, `reliability` is null.

    >>> pairs = pl.DataFrame({"votes": [[1.0, 1.0, 0.0]] * 20, "annotators": [["ann", "bob", "cy"]] * 20})
    >>> reliability(vote_table(pairs), np.zeros(20))["reliability"].round(2).to_list()   # (20 x .98 + 16 x .51) / 36
    [0.77, 0.77, 0.24]
    """
    pair, side = _sides(votes)
    odds = _prior(better_log_odds)
    names, annotator = np.unique(votes["annotator"].to_numpy(), return_inverse=True)
    compared = np.flatnonzero((np.bincount(pair, minlength=len(odds))[pair] >= 2) | (odds[pair] != 0))
    n_votes = np.bincount(annotator[compared], minlength=len(names)).astype(np.int64)
    start = np.full(len(names), _typical(pair[compared], side[compared], odds))
    rates = _one_coin(pair[compared], annotator[compared], side[compared], odds, start, prior_votes)
    columns = {"annotator": names, "n_votes": n_votes, "reliability": rates if len(compared) else np.nan * rates}
    return pl.DataFrame(columns, schema_overrides={"annotator": pl.String}).fill_nan(None)


def _typical(pair: np.ndarray, side: np.ndarray, odds: np.ndarray) -> float:
    """The rate of all annotators when they are taken for equally reliable; above one half, where all could be turned over."""
    rate = _one_coin(pair, np.zeros(len(pair), dtype=np.int64), side, odds, np.array([START]), 0.0)[0]
    return float(np.clip(rate, *TYPICAL_LIMITS))


def _one_coin(
    pair: np.ndarray, annotator: np.ndarray, side: np.ndarray, odds: np.ndarray, start: np.ndarray, prior_votes: float
) -> np.ndarray:
    """The rates (annotators,) at which expectation-maximisation stops; the start counts as `prior_votes` votes."""
    rates, n_votes = start, np.bincount(annotator, minlength=len(start))
    for _ in range(MOST_STEPS):
        better = _better(pair, side * _logit(rates)[annotator], odds)[pair]  # (votes,)
        n_right = np.bincount(annotator, np.where(side > 0, better, 1 - better), len(start))
        before, rates = rates, (n_right + prior_votes * start) / np.maximum(n_votes + prior_votes, 1)
        if np.abs(rates - before).max() < TOLERANCE:
            break
    return rates


def _sides(votes: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The pair of each vote, and its side as 1 or -1; both (votes,)."""
    return votes["pair"].to_numpy().astype(np.int64), 2 * votes["vote"].to_numpy() - 1


def _prior(better_log_odds: np.ndarray) -> np.ndarray:
    """The ensemble's log-odds without NaN, and no firmer than a probability of `PROB_LIMITS`."""
    return np.asarray(np.clip(np.nan_to_num(better_log_odds, nan=0.0), *_logit(np.array(PROB_LIMITS))))


def _logit(rates: np.ndarray) -> np.ndarray:
    clipped = np.clip(rates, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _better(pair: np.ndarray, evidence: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """The chance that the chosen response is the better one, (pairs,), from the log-odds of each vote, (votes,)."""
    from scipy.special import expit

    return np.asarray(expit(odds + np.bincount(pair, evidence, len(odds))))


def posterior(votes: pl.DataFrame, reliable: pl.DataFrame, better_log_odds: np.ndarray) -> np.ndarray:
    """The chance that the given label is right, (pairs,), from all votes on the pair and the ensemble; NaN without votes.

    `reliable` is the table of `reliability`. The ensemble's log-odds plus those of each vote, log(r / (1 - r)) for the
    label or against it. Assumed: votes err independently given the better response; the label is one of the votes or
    made of them, so that it says nothing that they do not; and the ensemble's vote is out of fold, so that it has not
    seen them. A pair without votes has its `label_prob`; an annotator without a reliability has no vote. Not for ties.

    >>> votes = vote_table(pl.DataFrame({"votes": [[1.0, 1.0, 0.0], []], "annotators": [["ann", "bob", "cy"], []]}))
    >>> reliable = pl.DataFrame({"annotator": ["ann", "bob", "cy"], "reliability": [0.8, 0.6, 0.9]})
    >>> posterior(votes, reliable, np.log([3.0, 3.0])).round(3).tolist()   # odds 3 x 4 x 1.5 / 9 = 2
    [0.667, nan]
    """
    known = votes.join(reliable.drop_nulls("reliability"), on="annotator", maintain_order="left")
    pair, side = _sides(known)
    odds = _prior(better_log_odds)
    right = np.clip(_better(pair, side * _logit(known["reliability"].to_numpy()), odds), *PROB_LIMITS)
    return np.where(np.bincount(pair, minlength=len(odds)) > 0, right, np.nan)


def has_several_votes(pairs: pl.DataFrame) -> bool:
    """True where some pair has the votes of two named annotators or more."""
    return bool((vote_table(pairs)["pair"].unique_counts() >= 2).any())


def with_annotators(
    pairs: pl.DataFrame, label_prob: pl.Series, better_log_odds: np.ndarray, judged: np.ndarray
) -> tuple[pl.Series, dict[str, Any]]:
    """`label_prob` with the posterior of votes and ensemble where a pair has several votes, and the facts of `annotator_facts`.

    `judged` (pairs,) is false for ties. With a single vote, which is the label itself, an annotator's reliability would rest
    on the ensemble alone, so there `label_prob` stays. `n_posterior` counts the others.
    """
    votes = vote_table(pairs)
    n_votes = np.bincount(votes["pair"].to_numpy().astype(np.int64), minlength=len(pairs))
    combined = posterior(votes, reliability(votes, better_log_odds), better_log_odds)
    is_combined = judged & (n_votes >= 2) & ~np.isnan(combined)
    column = pl.Series("label_prob", np.where(is_combined, combined, label_prob.fill_null(np.nan).to_numpy()))
    return column.fill_nan(None), {**annotator_facts(pairs, better_log_odds), "n_posterior": int(is_combined.sum())}


def annotator_table(votes: pl.DataFrame, better_log_odds: np.ndarray) -> pl.DataFrame:
    """How often each annotator agrees with all the others, one row per annotator by name, with a verdict.

    The others on a pair are the ensemble and the votes of everyone else, each worth a typical vote: an annotator's own
    votes must not choose whom to hold against them, or chance would be above one half. Pairs on which the others say
    nothing are not counted. `low` and `high` are the exact 95 % interval (Clopper and Pearson), which takes an
    annotator's votes as independent. `verdict` is null below `FEWEST_VOTES` votes; else

    - reversed: the interval is below one half;
    - random: it reaches one half or less, and does not reach the rate of all votes together;
    - ordinary: the rest.

    By Benjamini and Hochberg at most 5 % of the reversed are expected to be right half of the time or more, and of the
    random to be as good as the rest. Where pairs share their texts, or few agree, take both as reasons to look.
    """
    from scipy.stats import beta, binom

    pair, side = _sides(votes)
    odds = _prior(better_log_odds)
    names, annotator = np.unique(votes["annotator"].to_numpy(), return_inverse=True)
    weight = _logit(np.array(_typical(pair, side, odds)))
    others = (np.bincount(pair, side, len(odds))[pair] - side) * weight + odds[pair]  # (votes,)
    n = np.bincount(annotator, others != 0, len(names))
    agree = np.bincount(annotator, others * side > 0, len(names))
    with np.errstate(invalid="ignore"):
        low = np.where(agree > 0, beta.ppf(0.025, agree, n - agree + 1), 0.0)
        high = np.where(agree < n, beta.ppf(0.975, agree + 1, n - agree), 1.0)
        rate, typical = agree / n, agree.sum() / n.sum()
    is_judged = n >= FEWEST_VOTES
    is_reversed = (high < 0.5) & _discovered(np.asarray(binom.cdf(agree, n, 0.5)), is_judged)
    is_random = (low <= 0.5) & (high < typical) & _discovered(np.asarray(binom.cdf(agree, n, typical)), is_judged)
    verdict = np.select([~is_judged, is_reversed, is_random], ["", "reversed", "random"], "ordinary")
    columns = {"annotator": names, "n_votes": n.astype(np.int64), "agreement": rate, "low": low, "high": high}
    table = pl.DataFrame(columns, schema_overrides={"annotator": pl.String}).fill_nan(None)
    return table.with_columns(verdict=pl.Series(verdict, dtype=pl.String).replace("", None))


def _discovered(p_values: np.ndarray, is_tested: np.ndarray) -> np.ndarray:
    """True where the null is rejected by Benjamini and Hochberg at `FALSE_DISCOVERIES`, over the annotators tested."""
    from scipy.stats import false_discovery_control

    found = np.zeros(len(p_values), dtype=bool)
    if is_tested.any():
        found[is_tested] = false_discovery_control(p_values[is_tested]) <= FALSE_DISCOVERIES
    return found


def annotator_facts(pairs: pl.DataFrame, better_log_odds: np.ndarray) -> dict[str, Any]:
    """What a report says about the annotators, as JSON values; `better_log_odds` of zeros leaves the ensemble out.

    `doubtful` holds the reversed and then the random annotators, at most 20, those with the lowest upper bound first;
    `distribution` counts the annotators with a verdict by their agreement, in 20 bins from 0 to 1.
    """
    votes = vote_table(pairs)
    table = annotator_table(votes, better_log_odds)
    alpha = agreement_alpha(votes, pairs["group"].to_numpy())
    n_votes = int(table["n_votes"].sum())
    n_agree = float(table["agreement"].fill_null(0.0).to_numpy() @ table["n_votes"].to_numpy())
    doubtful = table.filter(pl.col("verdict").is_in(["reversed", "random"]))
    doubtful = doubtful.sort("verdict", "high", "annotator", descending=[True, False, False])
    return left_out(pairs) | {
        "n_pairs_voted": votes["pair"].n_unique(),
        "n_pairs_several": int((votes["pair"].unique_counts() >= 2).sum()),
        "n_annotators": len(table),
        "n_judged": len(table) - table["verdict"].null_count(),
        "n_reversed": int((table["verdict"] == "reversed").sum()),
        "n_random": int((table["verdict"] == "random").sum()),
        "agreement": n_agree / n_votes if n_votes else None,
        "alpha": alpha.to_dict() if alpha else None,
        "distribution": np.histogram(table.drop_nulls("verdict")["agreement"], N_BINS, (0.0, 1.0))[0].tolist(),
        "doubtful": doubtful.head(MOST_DOUBTFUL).to_dicts(),
    }
