"""Votes on labels whose errors are known, for the tests of statistics."""

import numpy as np
from scipy.special import expit


def votes(n, error_rate, seed=0):
    """Differences whose label is right with known chances: better by sigma(2 x), then swapped with `error_rate`."""
    rng = np.random.default_rng(seed)
    clean = rng.normal(0, 2, n)
    clean *= np.where(rng.random(n) < expit(2 * np.abs(clean)), np.sign(clean), -np.sign(clean))  # label = better one
    is_wrong = rng.random(n) < error_rate
    return np.where(is_wrong, -clean, clean), is_wrong
