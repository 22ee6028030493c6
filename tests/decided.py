"""A pair table with what the later stages add, for the tests of the export: decisions, strength and two members' scores."""

import polars as pl

PROBS = {"keep": 1.0, "flip": 1.0, "smooth": 0.7, "drop": None}
MARGINS = {"keep": 0.5, "flip": 0.25, "smooth": 0.125, "drop": None}
REASONS = {"keep": "fine", "flip": "wrong", "smooth": "doubtful", "drop": "broken"}


def decided(pairs: pl.DataFrame, actions: list[str] | None = None) -> pl.DataFrame:
    """The columns of decisions and strength of every pair, kept where no action is given; all strengths are alike."""
    actions = actions or ["keep"] * len(pairs)
    ties = (pairs["label_strength"].fill_null(1.0) == 0.5).to_list()
    prob = [0.5 if tie else PROBS[action] for action, tie in zip(actions, ties, strict=True)]
    return pl.DataFrame(
        {
            "pair_id": pairs["pair_id"],
            "action": actions,
            "reason": ["tie" if tie else REASONS[action] for action, tie in zip(actions, ties, strict=True)],
            "label_prob": pl.Series(prob, dtype=pl.Float64),
            "margin": pl.Series([MARGINS[action] for action in actions], dtype=pl.Float64),
            "weight": [float(action != "drop") for action in actions],
            "strength_mean": [0.75] * len(pairs),
            "strength_std": [0.25] * len(pairs),
            "vote_share": [1.0] * len(pairs),
            "chosen score list": pl.Series([[1.0, 2.0]] * len(pairs), dtype=pl.List(pl.Float32)),
            "rejected score list": pl.Series([[0.5, 1.0]] * len(pairs), dtype=pl.List(pl.Float32)),
        }
    )
