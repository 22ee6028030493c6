"""prefcurate: find, act on and measure wrong labels in preference data.

import curate
run = curate.audit("data.jsonl", out="runs/hh")
run.strength
run.export("cleaned/", format="trl")
run.retrain("rm/")
"""

from curate.errors import CurateError
from curate.pipeline import audit, load
from curate.policy import presets as policies
from curate.run import Run

__all__ = ["CurateError", "Run", "audit", "load", "policies"]
