"""The stages and uses as functions: the only files that reach into the packages rm_ensemble and reports.

What these bring, and what needs numpy, is imported inside functions, so that asking for help is quick and reading a dataset
never loads torch.
"""

from curate.pipeline.audit import audit
from curate.pipeline.models import evaluate, score
from curate.pipeline.stages import check, check_data, decide, explain, load, report, strength, vote
from curate.pipeline.uses import compare, diff, diff_page, export, push, retrain, sample, sql

__all__ = [
    "audit", "check", "check_data", "compare", "decide", "diff", "diff_page", "evaluate", "explain", "export",
    "load", "push", "report", "retrain", "sample", "score", "sql", "strength", "vote",
]  # fmt: skip
