"""An MkDocs hook that turns TeX formulas into MathML while the site is built, so that pages need no script."""

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace each formula that `pymdownx.arithmatex` marked in a page."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    tag, opening, tex = match.groups()
    block = opening == "["
    formula = convert(html.unescape(tex).strip(), display="block" if block else "inline")
    return f'<{tag} class="formula">{formula}</{tag}>' if block else formula
