"""The page of a diff: complete in itself, safe against its data, and working in a browser."""

import re
from pathlib import Path

import polars as pl
import pytest
from browsing import FAINT, own_text, texts, wait_for_charts
from fake_run import HOSTILE, fake_pairs, fake_run
from hypothesis import given
from hypothesis import strategies as st

from curate.run import Run, write_parquet
from reports.diff_page import page, write_diff_page
from reports.diff_pairs import N_SHOWN, changed_pairs, to_show
from reports.edits import MOST_COMPARED, edits, shortened

HOSTILE_RUN = "<img src=x onerror=alert(9)>"


def edited(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the label of the first swapped, a response of the second and the prompt of the third edited."""
    rows = pairs.to_dicts()
    rows[0]["chosen"], rows[0]["rejected"] = rows[0]["rejected"], rows[0]["chosen"]
    rows[1]["rejected"][0]["content"] += "<script>alert(7)</script>"
    rows[2]["prompt"][-1]["content"] += " Please."
    return pl.DataFrame(rows, schema=pairs.schema)


def second_version(path: Path, pairs: pl.DataFrame, **votes) -> Run:
    """A run whose pairs are others than those of `fake_run`, with the same strengths and decisions."""
    run = fake_run(path, **votes)
    write_parquet(pairs, path / "pairs.parquet")
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("diff")
    return fake_run(folder / "old"), second_version(folder / HOSTILE_RUN, edited(fake_pairs()), effective_votes=1.2)


@pytest.fixture(scope="module")
def file(runs) -> Path:
    path = runs[0].path.parent / "diff.html"
    write_diff_page(runs[0].diff(runs[1]), *runs, path)
    return path


@pytest.fixture(scope="module")
def html(file) -> str:
    return file.read_text(encoding="utf-8")


def test_the_answer_comes_first(html):
    own = own_text(html)
    first = own.index("3 pairs of the data changed, and no decision on the pairs in both.")
    assert first < own.index("1 label was swapped, 1 pair has an edited response, 1 pair has an edited prompt.")
    assert first < own.index('id="checks"') < own.index('id="audits"') < own.index('id="settings"')
    assert "at least 1.5" in own and "at least 1.2" in own


def test_hostile_texts_are_escaped_and_edits_are_marked(html):
    own = own_text(html)
    for text in (*HOSTILE[:3], HOSTILE_RUN, "<script>alert(7)"):
        assert text not in own
    assert "<ins>&lt;script&gt;alert(7)&lt;/script&gt;</ins>" in own
    assert "<ins> Please.</ins>" in own
    assert "&lt;img src=x onerror=alert(9)&gt;" in own


def test_the_page_is_complete_and_small(html):
    assert len(html.encode()) < 6_000_000
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", own_text(html))
    assert "default-src 'none'" in html


def test_equal_runs_give_equal_bytes_wherever_they_are(html, tmp_path):
    a, b = fake_run(tmp_path / "old"), second_version(tmp_path / HOSTILE_RUN, edited(fake_pairs()), effective_votes=1.2)
    write_diff_page(a.diff(b), a, b, tmp_path / "diff.html")
    assert (tmp_path / "diff.html").read_text(encoding="utf-8") == html


def test_the_page_of_nothing_changed_and_of_unfinished_runs(runs, tmp_path):
    same = runs[0].diff(runs[0])
    write_diff_page(same, runs[0], runs[0], tmp_path / "same.html")
    text = own_text((tmp_path / "same.html").read_text(encoding="utf-8"))
    assert "Nothing changed." in text and "No pair changed." in text and "chart-strengths" not in text
    early = fake_run(tmp_path / "early", stages=("load",))
    write_diff_page(early.diff(runs[0]), early, runs[0], tmp_path / "early.html")
    text = own_text((tmp_path / "early.html").read_text(encoding="utf-8"))
    assert "The decisions are not compared: stage decide has not run in A." in text


def test_all_changes_have_room_on_the_page(make_pairs, tmp_path):
    rows = [(f"q{i}", f"a{i}", f"b{i}") for i in range(2 * N_SHOWN)]
    a = second_version(tmp_path / "a", make_pairs(*rows, ("swapped", "a", "b")))
    b = second_version(tmp_path / "b", make_pairs(("swapped", "b", "a")))
    for run in (a, b):
        run.update(stages={"load": run.manifest["stages"]["load"]})
    found = a.diff(b)
    shown = to_show(found.pairs)
    assert len(shown) == N_SHOWN
    assert shown["change"].value_counts(sort=True).rows() == [("only in A", N_SHOWN - 1), ("label swapped", 1)]
    assert changed_pairs(found.pairs, a, b)[0]["prompt"] == [{"is": "same", "text": "swapped"}]


def test_the_sides_are_those_of_the_label_in_a(make_pairs, tmp_path):
    a = second_version(tmp_path / "a", make_pairs(("q", "good answer", "bad answer")))
    b = second_version(tmp_path / "b", make_pairs(("q", "bad answer", "good reply")))
    for run in (a, b):
        run.update(stages={"load": run.manifest["stages"]["load"]})
    (row,) = changed_pairs(a.diff(b).pairs, a, b)
    assert row["change"] == "label swapped, response edited"
    assert [run["is"] for run in row["chosen"]] == ["same", "old", "new"]
    assert row["rejected"] == [{"is": "same", "text": "bad answer"}]


@given(st.text(alphabet="ab ,\n\u202eé"), st.text(alphabet="ab ,\n\u202eé"))
def test_both_versions_can_be_read_off_the_edits(old, new):
    runs = edits(old, new)
    assert "".join(run["text"] for run in runs if run["is"] != "new") == old
    assert "".join(run["text"] for run in runs if run["is"] != "old") == new
    assert all(run["text"] for run in runs)


def test_an_edit_within_a_long_text_is_shown_with_what_is_around_it():
    text = " ".join(f"word{i}" for i in range(1000))
    first, old, new, last = shortened(edits(text, text.replace("word500", "changed")))
    assert (old["text"], new["text"]) == ("word500", "changed")
    assert first["text"].startswith("…") and first["text"].endswith("word499 ")
    assert last["text"].startswith(" word501") and last["text"].endswith("…")


def test_rewritten_long_texts_are_not_compared_word_by_word():
    n = int(MOST_COMPARED**0.5)
    old, new = (" ".join(letter for _ in range(n)) for letter in "ab")
    assert [run["is"] for run in edits(old, new)] == ["old", "new"]


def test_facts_without_a_chart_have_a_page(runs):
    found = runs[0].diff(runs[1]).facts
    del found["strength"]
    empty = {name: {"a": [], "b": []} for name in ("same pair and label", "texts edited", "label swapped")}
    assert "Plotly" in page({**found, "pairs": [], "scatter": {"n_points": 0, "n_pairs": 0, "points": empty}})


@pytest.fixture
def opened(browser, file):
    look(browser, "light")
    browser.get(file.as_uri())
    wait_for_charts(browser)
    return browser


def look(browser, scheme, media=""):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def test_the_page_renders_without_a_console_message(opened):
    n_plots = opened.execute_script("return document.querySelectorAll('.plot').length")
    n_drawn = opened.execute_script("return document.querySelectorAll('.plot:has(svg.main-svg)').length")
    assert n_plots == n_drawn == 1
    assert opened.get_log("browser") == []


def test_hostile_texts_stay_text(opened):
    shown = " ".join(texts(opened, "#pairs td.text"))
    for text in HOSTILE[:3]:
        assert text in shown
    assert texts(opened, "h1 bdi") == ["old", HOSTILE_RUN]
    assert opened.execute_script("return document.querySelectorAll('body img, main script, svg a').length") == 0


def test_the_table_searches_and_sorts(opened):
    opened.find_element("id", "search").send_keys("prompt edited")
    assert texts(opened, "#matches") == ["1 of 1 pairs shown"]
    opened.find_element("id", "search").clear()
    opened.find_element("id", "search").send_keys(" ")
    assert texts(opened, "#pairs tbody tr:not([hidden]) th[scope=row]") == ["1", "2", "3"]
    button = opened.find_element("css selector", "#pairs th[data-key=rank] button")
    opened.execute_script("arguments[0].click()", button)
    assert texts(opened, "#pairs tbody tr:not([hidden]) th[scope=row]") == ["3", "2", "1"]


def test_what_was_not_computed_sorts_last_both_ways(opened):
    button = opened.find_element("css selector", "#pairs th[data-key=shift] button")
    shifts = (
        "arguments[0].click(); return [...document.querySelectorAll('#pairs tbody tr')].map((e) => e.dataset.shift)"
    )
    assert [opened.execute_script(shifts, button) for _ in range(2)] == [["0.0", "0.0", ""]] * 2


@pytest.mark.parametrize("text", ["word " * 100, "line\n" * 10])
def test_long_rows_unfold(browser, make_pairs, tmp_path, text):
    a = second_version(tmp_path / "a", make_pairs((text, "a", "b"), ("q", "a", "b")))
    b = second_version(tmp_path / "b", make_pairs((text, "b", "a"), ("q", "b", "a")))
    for run in (a, b):
        run.update(stages={"load": run.manifest["stages"]["load"]})
    write_diff_page(a.diff(b), a, b, tmp_path / "diff.html")
    browser.get((tmp_path / "diff.html").as_uri())
    (button,) = browser.find_elements("css selector", "#pairs tr.folded button[data-unfold]")
    browser.execute_script("arguments[0].click()", button)
    assert (button.get_attribute("aria-expanded"), button.text) == ("true", "Show less")
    assert browser.find_elements("css selector", "#pairs tr.folded") == []


def test_colours_follow_the_screen_and_the_printer(opened):
    from selenium.webdriver.support.ui import WebDriverWait

    ink = "return getComputedStyle(document.querySelector('.plot .xtitle')).fill === arguments[0]"
    light, dark = "rgb(28, 35, 48)", "rgb(233, 231, 226)"
    for scheme, media, colour in (("light", "", light), ("dark", "", dark), ("dark", "print", light)):
        look(opened, scheme, media)
        WebDriverWait(opened, 30, poll_frequency=0.05).until(lambda page, drawn=colour: page.execute_script(ink, drawn))
    assert not opened.find_element("id", "search").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme):
    look(opened, scheme)
    opened.execute_script("document.getElementById('more-pairs').hidden = false")
    assert opened.execute_script(FAINT) == []


def test_a_phone_scrolls_one_way_only(opened):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.refresh()
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
