"""Texts on a page in Chromium, read in one call: the page may replace its elements between two calls."""

from typing import Any


def texts(page: Any, selector: str) -> list[str]:
    """The visible text of each element that the CSS selector finds, in their order."""
    script = "return [...document.querySelectorAll(arguments[0])].map(element => element.innerText.trim())"
    found: list[str] = page.execute_script(script, selector)
    return found
