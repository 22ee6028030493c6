"""The facts as one HTML file that opens offline: no request leaves it, and no text of the data can run in it.

The page renders the facts and nothing else. Texts are escaped by jinja2, the figures' JSON cannot close its script
element, and the content security policy allows exactly the page's own scripts, by hash, and no address at all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from curate.run import Progress, Run, no_progress, whole_file, write_json
from reports import numbers
from reports.charts import charts
from reports.differences import RULE, differences
from reports.facts import facts
from reports.findings import WARNED_WHEN, check_rows, finding_rows, findings_sentence, pair_filters
from reports.languages import DETECTED
from reports.marks import Chart
from reports.strength_charts import KIND_COLOURS

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LONG_TEXT = 350  # characters; a longer text in the table of pairs begins folded
LONG_LINES = 8
CODE = re.compile(r"--[a-z][a-z-]*|\bcurate [a-z]+\b|\blabel_prob\b|\bstrength_mean\b")
LONGEST_NAME = 80  # characters of a name that comes from the data
LONGEST_MEANING = 240  # characters; ours are shorter, but one that names a column of the data can have any length

ACTION_WORDS = {
    "keep": ("kept", "trained on as labelled"),
    "smooth": ("smoothed", "trained on with a soft label"),
    "flip": ("flipped", "chosen and rejected change places"),
    "drop": ("dropped", "left out, with its reason"),
}


def write_report(run: Run, progress: Progress = no_progress) -> None:
    """Write `facts.json` and `report.html` into the run folder, each whole or not at all."""
    found = facts(run, progress)
    html = page(found)
    write_json(found, run.path / "facts.json")
    with whole_file(run.path / "report.html") as partial:
        partial.write_text(html, encoding="utf-8", newline="\n")


def page(facts: Mapping[str, Any]) -> str:
    """The report of some facts (as made by `reports.facts.facts`, or read back from facts.json) as HTML.

    Equal facts give equal bytes.
    """
    return rendered("report.html", charts(facts), scripts=("pairs.js",), facts=facts)


def rendered(
    template: str, drawn: Mapping[str, Chart], scripts: Sequence[str] = (), styles: Sequence[str] = (), **values: Any
) -> str:
    """A page with its charts and table of pairs; `scripts` and `styles` are files that only this page has, `values` its own."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    plotly, code = get_plotlyjs(), [_template(name) for name in ("charts.js", "table.js", *scripts)]
    return (
        environment()
        .get_template(template)
        .render(
            charts=drawn,
            figures=Markup(json_in_script({chart.id: _drawing(chart) for chart in drawn.values()})),
            plotly=Markup(plotly),
            scripts=[Markup(script) for script in code],
            policy=Markup(content_policy([plotly, *code])),
            style=Markup("".join(_template(name) for name in ("report.css", *styles))),
            **values,
        )
    )


def environment() -> "Environment":
    """The templates, which escape what they write, and the functions that they call."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = ("count", "counted", "percent", "short_percent", "interval", "decimal", "decimal_interval")
    made.filters |= {name: getattr(numbers, name) for name in written}
    made.filters["with_code"] = with_code
    functions = (as_text, check_rows, differences, finding_rows, findings_sentence, is_long, pair_filters)
    made.globals |= {function.__name__: function for function in functions}
    made.globals |= {
        "action_words": ACTION_WORDS,
        "detected": DETECTED,
        "difference_rule": RULE,
        "kind_colours": {kind: colour.removeprefix("@") for kind, colour in KIND_COLOURS.items()},
        "longest_meaning": LONGEST_MEANING,
        "longest_name": LONGEST_NAME,
        "warned_when": WARNED_WHEN,
    }
    return made


def _template(name: str) -> str:
    return resources.files("reports").joinpath("templates", name).read_text(encoding="utf-8")


def _drawing(chart: Chart) -> dict[str, Any]:
    choices = [{"title": choice.title, "heights": choice.heights} for choice in chart.choices]
    layout = {**chart.figure["layout"], "height": chart.height}
    return {"data": chart.figure["data"], "layout": layout, **({"choices": choices} if choices else {})}


def json_in_script(value: Any) -> str:
    """JSON that is safe between script tags: no character in it can end the element or begin a comment.

    >>> json_in_script({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content_policy(scripts: list[str]) -> str:
    """A content security policy under which only these inline scripts run and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"


def is_long(texts: Iterable[str]) -> bool:
    """True where one of the texts takes so much room that it begins folded."""
    return any(len(text) > LONG_TEXT or text.count("\n") > LONG_LINES for text in texts)


def with_code(text: str) -> "Markup":
    """A sentence as HTML, with the options and commands in it set as code.

    >>> str(with_code("<b> try --backbone"))
    '&lt;b&gt; try <code>--backbone</code>'
    """
    from markupsafe import Markup, escape

    return Markup(CODE.sub(r"<code>\g<0></code>", str(escape(text))))


def as_text(value: Any) -> str:
    """An option's value as it is read: text as it is, everything else as JSON.

    >>> as_text("minilm"), as_text(True), as_text([1, 2])
    ('minilm', 'true', '[1, 2]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
