"""The page is the same for the same run, complete in itself, safe against its data, and works in a browser."""

import json
import re
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from browsing import own_text
from fake_run import (
    GUARANTEE,
    HOSTILE,
    HOSTILE_CATEGORY,
    fake_old_run,
    fake_run,
    fake_verified_run,
)

from curate.guarantee_words import guarantee_words
from reports.facts import facts
from reports.page import json_in_script, page, write_report
from reports.summary import summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_run(tmp_path_factory.mktemp("run"))
    write_report(run)
    return run.path


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def verified_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_verified_run(tmp_path_factory.mktemp("verified"))
    write_report(run)
    return run.path


@pytest.fixture(scope="module")
def verified_html(verified_folder: Path) -> str:
    return own_text((verified_folder / "report.html").read_text(encoding="utf-8"))


def test_the_same_run_gives_the_same_bytes_wherever_it_is(folder: Path, tmp_path: Path) -> None:
    other = fake_run(tmp_path / "elsewhere")
    write_report(other)
    for name in ("facts.json", "report.html"):
        assert (folder / name).read_bytes() == (other.path / name).read_bytes()
        assert str(tmp_path).encode() not in (other.path / name).read_bytes()


def test_the_page_needs_the_facts_alone(folder: Path, html: str) -> None:
    assert page(json.loads((folder / "facts.json").read_text(encoding="utf-8"))) == html


def test_the_page_is_complete_and_small(html: str) -> None:
    assert len(html.encode()) < 6_000_000
    own = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", own)
    assert "default-src 'none'" in own


def test_hostile_texts_are_escaped(html: str) -> None:
    own = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    for text in (*HOSTILE[:3], HOSTILE_CATEGORY, "<mostly>", "<rows>"):
        assert text not in own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in own
    assert "{{ 7 * 7 }}" in own


def test_the_page_says_how_many_of_the_shown_labels_are_probably_wrong(folder: Path, html: str) -> None:
    rows = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["suspicious"]
    likely = sum(row["label_prob"] < 0.5 for row in rows)
    assert f"The {len(rows)} labels that the votes are most against" in html
    assert f"{likely} of these labels are more likely wrong than right" in html


def test_json_cannot_close_its_script() -> None:
    text = json_in_script({"<!--": "</script>\u2028"})
    assert "<" not in text and ">" not in text and "\u2028" not in text
    assert json.loads(text) == {"<!--": "</script>\u2028"}


def test_the_page_never_says_noise_rate(html: str) -> None:
    own = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "noise rate" not in own.lower()
    assert "errors do not depend on the pair" in own
    assert "curate sample RUN --n 300 --to FILE" in own and "--verified FILE" in own


def test_verified_pairs_show_the_noise_rate_first_and_never_the_clear_rate_as_such(verified_html: str) -> None:
    wrong = verified_html.split('id="wrong"')[1]
    sentence = "13.9 % of the labels are wrong, 95 % interval 10.6 to 17.8 %, from 60 verified pairs."
    assert wrong.index(sentence) < wrong.index("Checks of the text") < wrong.index("error rate among clear pairs")
    assert verified_html.count("noise rate") == 1 and "The noise rate: 9 of these 60 labels" in wrong
    assert "(1 unsure answer counts as right)" in wrong
    assert "<dt>labels are wrong</dt><dd>13.9 %</dd>" in verified_html
    assert "curate sample RUN" not in verified_html


def test_the_page_says_how_sure_it_is(verified_html: str) -> None:
    sure = verified_html.split('id="sure"')[1].split('id="actions"', maxsplit=1)[0]
    assert "Calibration error (ECE) 0.023 (95 % interval 0.011 to 0.060), Brier score 0.071 (0.050 to 0.090)" in sure
    assert "Calibration error (ECE) 0.010 (95 % interval 0.005 to 0.030)" in sure
    assert "fitted to 60 verified pairs" in sure
    assert "at least 1.5" in verified_html


def test_the_page_shows_rules_and_guarantee(verified_html: str) -> None:
    actions = verified_html.split('id="actions"')[1].split('id="show"', maxsplit=1)[0]
    assert "<code>label_prob &lt; 0.3</code>" in actions and "&lt;script&gt;" in actions
    assert "drop &lt;most&gt;; see <code>--policy</code>" in actions
    for sentence in guarantee_words(GUARANTEE, True):
        assert sentence in actions
    assert "not known" in actions  # no verified pair is as strong as the strongest 5 %


def test_names_of_annotators_are_escaped_and_cut(verified_html: str) -> None:
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(4)&gt;" in verified_html
    assert "<img" not in verified_html and "n" * 90 not in verified_html
    assert "alpha 0.41 (95 % interval 0.38 to 0.45)" in verified_html


def members_text(html: str) -> str:
    """The part of the page on the members, from their title to the end of the section."""
    return own_text(html).split('id="members-title"')[1].split('id="actions"', maxsplit=1)[0]


def rows_of(table: str) -> list[list[str]]:
    """The text of each cell of a table's body."""
    body = table.split("<tbody>")[1].split("</tbody>", maxsplit=1)[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in rows]


def checks_text(html: str) -> str:
    """The part of the page on checks and findings."""
    return own_text(html).split('id="wrong"')[1].split('id="chart-clear-title"', maxsplit=1)[0]


def test_checks_say_how_bad_it_is_and_what_to_do(html: str) -> None:
    shown = checks_text(html)
    assert rows_of(shown) == [
        [
            "echo",
            "error",
            "1 look at pairs found by echo",
            "0.8 %",
            "",
            "A response repeats the prompt.",
            "drop the pair",
        ],
        [
            "cut off",
            "warning",
            "12 look at pairs found by cut off",
            "10.0 %",
            "",
            "A response stops within a sentence.",
            "write it again",
        ],
        [
            "refusal",
            "warning",
            "3 look at pairs found by refusal",
            "2.5 %",
            "",
            "A response &lt;refuses&gt;.",
            "read &lt;them&gt;",
        ],
        [
            "length ratio",
            "note",
            "12 look at pairs found by length ratio",
            "10.0 %",
            "",
            "One response is far longer.",
            "nothing",
        ],
    ]
    assert "2 checks found nothing: empty response, no prompt." in shown


def test_findings_stand_beside_their_null(html: str) -> None:
    table = checks_text(html).split('aria-label="Findings about the labels as a whole: the numbers"')[1]
    assert "<caption>" in table and 'scope="row"' in table and 'scope="col"' in table
    rows = rows_of(table)
    assert rows[0][:-1] == ["length bias", "warning", "71.0 %", "68.0 to 74.0 %", "50 %", "119"]
    assert rows[0][-1] == "What length_bias is. What to do: what to do about length_bias"
    assert rows[2] == ["list bias", "note", "52.0 %", "48.0 to 56.0 %", "50 %", "119", "What list_bias is."]
    assert "7 prompts only: the interval is too narrow. What to do:" in rows[1][-1]
    assert "2 of 4 findings about the data as a whole are warnings." in checks_text(html)


def test_names_of_columns_are_escaped_and_cut(html: str) -> None:
    shown = checks_text(html)
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(6)&gt;" in shown
    assert "<img" not in shown and "c" * 290 not in shown


def test_an_old_run_has_its_checks_as_before(tmp_path: Path) -> None:
    shown = checks_text(page(facts(fake_old_run(tmp_path))))
    assert rows_of(shown)[0] == [
        "length ratio",
        "12 look at pairs found by length ratio",
        "10.0 %",
        "",
        "One response is far longer.",
    ]
    assert len(rows_of(shown)) == 6 and shown.count('class="none"') == 2
    assert not re.search("severity|what to do|found nothing|findings", shown)


def test_checks_that_all_found_nothing_are_one_line(folder: Path) -> None:
    made = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    made["checks"]["found"] = [{**check, "n_pairs": 0} for check in made["checks"]["found"]]
    made["checks"]["biases"] = []
    shown = checks_text(page(made))
    assert "6 checks found nothing: " in shown and 'aria-label="Checks"' not in shown and "findings" not in shown


def test_members_have_a_table_and_sentences(html: str) -> None:
    shown = members_text(html)
    assert re.findall(r'<th scope="row"[^>]*>(\d+)</th>', shown) == ["0", "1", "2"]
    for part in (">71.0 %<", ">0.55<", "<bdi>minilm</bdi>", "on 119 pairs", "fitted to convergence", "1.2 × 10⁻⁶"):
        assert part in shown
    assert 'aria-labelledby="members-title"' in shown and "<caption>" in shown and 'scope="col"' in shown
    assert "--deterministic" not in shown
    assert "<img" not in shown and "m" * 90 not in shown
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(5)&gt;" in shown


def test_votes_that_depend_on_the_batch_are_warned_of_on_page_and_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    out = StringIO()
    made = facts(fake_run(tmp_path, batch_tolerance=0.05))
    Console(file=out, width=300).print(summary(made))
    warning = "The other texts in its batch moved a reward by up to 0.05"
    assert f"! {warning}" in out.getvalue()
    assert f'<p class="assumption">{warning}' in members_text(page(made))
    assert "Vote again with <code>--deterministic</code>." in members_text(page(made))


def test_the_terminal_says_nothing_of_batches_that_agree(folder: Path) -> None:
    from rich.console import Console

    out = StringIO()
    Console(file=out, width=300).print(summary(json.loads((folder / "facts.json").read_text(encoding="utf-8"))))
    assert "batch" not in out.getvalue()


def test_an_old_run_has_a_page(tmp_path: Path, folder: Path) -> None:
    shown = members_text(page(facts(fake_old_run(tmp_path))))
    assert ">71.0 %<" in shown and "backbone" not in shown and "batch" not in shown
    old = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    del old["members"]  # facts.json as an older version wrote it
    assert "members-title" not in page(old)


def test_in_sample_members_have_no_agreement(tmp_path: Path) -> None:
    shown = members_text(page(facts(fake_run(tmp_path, scoring="in-sample"))))
    assert "71.0 %" not in shown and "agree" not in shown and ">0.55<" in shown


def test_warnings_of_strength_and_decision_are_shown(verified_html: str) -> None:
    for warning in ("Every &lt;verified&gt; label is wrong.", "No rule &lt;of&gt; yours."):
        assert f"<li>{warning}</li>" in verified_html


ONE, TIES, UNKNOWN = "one pair", "ties only", "no label_prob"


@pytest.mark.parametrize("scoring", ["out-of-fold", "in-sample", "given"])
@pytest.mark.parametrize("odd", [ONE, TIES, UNKNOWN])
def test_a_page_of_an_odd_run(odd: str, scoring: str, tmp_path: Path) -> None:
    run = fake_run(tmp_path, scoring=scoring)
    for name in ("pairs", "checks", "strength", "decisions"):
        table = run.read(name)
        if odd == ONE:
            table = table.head(1)
        elif odd == TIES and name == "pairs":
            table = table.with_columns(label_strength=pl.lit(0.5))
        elif name == "strength":
            table = table.with_columns(label_prob=pl.lit(None, dtype=pl.Float64))
        table.write_parquet(tmp_path / f"{name}.parquet")
    made = facts(run)
    text = own_text(page(made))
    n_pairs = 1 if odd == ONE else 120
    assert f"{n_pairs} preference pair" in text
    assert len(made["suspicious"]) == {ONE: 1, TIES: 0}.get(odd, len(made["suspicious"]))
    assert ("Examples of what the checks found" in text) == (odd == TIES)
    assert "nan" not in re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize("stages", [("load",), ("load", "check"), ("load", "vote", "strength")])
def test_a_page_of_an_unfinished_run_names_what_is_missing(stages: tuple[str, ...], tmp_path: Path) -> None:
    text = page(facts(fake_run(tmp_path, stages=stages)))
    assert "Not computed in this run" in text
    assert ("curate strength" in text) == ("strength" not in stages)


def test_the_terminal_summary_has_the_same_numbers(folder: Path) -> None:
    from rich.console import Console

    out = StringIO()
    made = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    Console(file=out, width=100).print(summary(made))
    text = out.getvalue().replace("\u00a0", " ")
    for part in (
        made["verdict"]["headline"],
        "72.0 %",
        "66.0 to 78.0 %",
        "55.0 %",
        "1.5",
        "length ratio",
        "<mostly>",
        "<rows>",
    ):
        assert part in text
    assert re.search(r"all +120 ", text)
    assert re.search(r"pairs with an error +1 +by the checks; 15 with a warning", text)


def test_the_terminal_says_what_the_labels_clearly_prefer_and_is_not_steered(folder: Path) -> None:
    from rich.console import Console

    out = StringIO()
    made = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    made["checks"]["biases"][1] |= {"name": "\x1b[31mred[/]_shortcut", "severity": "warning"}
    made["decisions"]["reasons"][0]["reason"] = "[/]\x1b[2J"
    Console(file=out, width=200).print(summary(made))
    text = out.getvalue().replace("\u00a0", " ")
    warned = [row for row in made["checks"]["biases"] if row["severity"] == "warning"]
    assert len(warned) >= 2 and "\x1b" not in text and "[/]\\x1b[2J" in text
    assert "shortcut by \\x1b[31mred[/]" in text
    for row in warned:
        assert f"{row['value']:.1%}".replace("%", " %") in text and row["meaning"][:12] in text


def test_the_terminal_summary_of_a_verified_run(verified_folder: Path, folder: Path) -> None:
    from rich.console import Console

    def printed(path: Path) -> str:
        out = StringIO()
        made = json.loads((path / "facts.json").read_text(encoding="utf-8"))
        Console(file=out, width=250).print(summary(made))
        return re.sub(" +", " ", out.getvalue().replace("\u00a0", " "))

    text = printed(verified_folder)
    for part in (
        "labels that are wrong 13.9 % 95 % interval 10.6 to 17.8 %, 60 verified pairs",
        "calibration error of label_prob 0.023 95 % interval 0.011 to 0.060, 60 verified pairs",
        "independent votes 2.2 of 3 members, given the truth; at least 1.5 without",
        "alpha of the annotators 0.41 95 % interval 0.38 to 0.45, 9 annotators",
        "annotators in doubt 1 of 7 judged, by their looks 1 reversed, 0 random",
        "! Every <verified> label is wrong.",
        *guarantee_words(GUARANTEE, True),
    ):
        assert part in text
    assert "curate sample" not in text and "curate sample RUN --n 300 --to FILE" in printed(folder)


def test_the_summary_of_an_unfinished_run(tmp_path: Path) -> None:
    from rich.console import Console

    out = StringIO()
    Console(file=out, width=100).print(summary(facts(fake_run(tmp_path, stages=("load",)))))
    assert "Nothing has judged these labels yet." in out.getvalue()
