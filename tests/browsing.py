"""What the tests of the pages share: the text of a page, and what a browser shows of it."""

import re
from typing import Any


def own_text(html: str) -> str:
    """The page without its scripts, with plain spaces."""
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL).replace("\u00a0", " ")


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => !e.hidden).map(e => e.textContent.trim())"
    found: list[str] = browser.execute_script(script, selector)
    return found
