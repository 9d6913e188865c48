"""HTML in texts: entities resolved, tags taken out."""

from __future__ import annotations

import html
import re

BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head",
    "header", "hr", "html", "li", "main", "menu", "nav", "ol", "option", "p", "pre", "section", "select",
    "summary", "table", "tbody", "td", "template", "textarea", "tfoot", "th", "thead", "title", "tr", "ul",
})  # fmt: skip
"""Elements that stand on lines of their own."""

INLINE = frozenset({
    "a", "abbr", "acronym", "area", "audio", "b", "base", "basefont", "bdi", "bdo", "big", "button", "canvas",
    "caption", "cite", "code", "col", "colgroup", "data", "datalist", "del", "dfn", "em", "embed", "font", "i",
    "iframe", "img", "input", "ins", "kbd", "label", "legend", "link", "map", "mark", "meta", "meter",
    "noscript", "object", "output", "param", "picture", "progress", "q", "rp", "rt", "ruby", "s", "samp",
    "small", "source", "span", "strike", "strong", "sub", "sup", "svg", "time", "tt", "u", "var", "video",
    "wbr",
})  # fmt: skip
"""Elements that stand in a line."""

_HIDDEN = re.compile(r"<!--.*?-->|<!doctype\b[^<>]*>|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)(?=[\s/>])[^<>]*>")


def resolved(text: str) -> str:
    """``&eacute;`` and ``&#233;`` become the characters that they stand for."""
    return html.unescape(text) if "&" in text else text


def stripped(text: str) -> str:
    """A text without the tags of HTML; what stands in angle brackets and is no element of HTML stays.

    The elements that stand on lines of their own leave a line end.
    """
    if "<" in text:
        text = _TAG.sub(_without, _HIDDEN.sub("", text))
    return resolved(text)


def _without(found: re.Match[str]) -> str:
    name = found[1].lower()
    return "\n" if name in BLOCKS else "" if name in INLINE else found[0]
