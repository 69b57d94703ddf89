"""A hook of MkDocs: formulas become MathML when the site is built, which browsers draw without any script or font."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<kind>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    r"""Replace each `\(...\)` and `\[...\]` that pymdownx.arithmatex has marked in the HTML of a page."""
    return FORMULA.sub(_drawn, content)


def _drawn(formula: re.Match[str]) -> str:
    display = "block" if formula["kind"] == "[" else "inline"
    return convert(html.unescape(formula["tex"]).strip(), display=display)
