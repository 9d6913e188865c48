"""Colours by name, and figures as SVG and PNG: in a page the colours follow its scheme, in a file they are fixed."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ftk.errors import visible

Paint = Mapping[str, str]
"""Colours by name."""

Draw = Callable[[Paint], Figure]

LEVELS = 12
"""Shades of a heat map."""

SERIES = 8
"""Colours that tell lines apart; those of Okabe and Ito (2008), which colour-blind readers tell apart too."""

LIGHT = {
    "ink": "#1d2530", "soft": "#5d6875", "line": "#d9dee5", "ground": "#ffffff", "missing": "#f1f3f6",
    "series0": "#0072b2", "series1": "#c44f00", "series2": "#00805e", "series3": "#a8437f",
    "series4": "#8a6100", "series5": "#2b8cc4", "series6": "#6b4fa0", "series7": "#50575f",
}  # fmt: skip
DARK = {
    "ink": "#e6eaf0", "soft": "#9aa6b4", "line": "#343d49", "ground": "#14181e", "missing": "#1c222a",
    "series0": "#56b4e9", "series1": "#f0894a", "series2": "#2fc49a", "series3": "#e08cc0",
    "series4": "#e0b13c", "series5": "#8fd0f5", "series6": "#b5a0ea", "series7": "#b3bcc7",
}  # fmt: skip


def _shades(theme: dict[str, str], ends: tuple[str, ...], dark_text: str, light_text: str) -> None:
    """Add ``heat0`` to ``heat11`` between the ends, and ``on0`` to ``on11``, in which a number on them is written."""
    for level in range(LEVELS):
        at = level / (LEVELS - 1) * (len(ends) - 1)
        low = min(int(at), len(ends) - 2)
        pair = [[int(end[i : i + 2], 16) for i in (1, 3, 5)] for end in ends[low : low + 2]]
        mixed = [round(a + (b - a) * (at - low)) for a, b in zip(*pair, strict=True)]
        theme[f"heat{level}"] = "#{:02x}{:02x}{:02x}".format(*mixed)
        choices = (dark_text, light_text)
        theme[f"on{level}"] = max(choices, key=lambda text: contrast(text, theme[f"heat{level}"]))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


_shades(LIGHT, ("#eef3f9", "#8db8de", "#2b74b3", "#0a2f5c"), "#0a0f16", "#ffffff")
_shades(DARK, ("#1b2531", "#23507c", "#4a92cf", "#c8e4ff"), "#05080c", "#ffffff")

NAMES = list(LIGHT)
PAGE = {name: f"#fe{number:04x}" for number, name in enumerate(NAMES, start=1)}
"""In a figure for a page each colour stands for its name, and becomes ``var(--name)``."""

_STAND_IN = re.compile("#fe([0-9a-f]{4})")
_SVG = "http://www.w3.org/2000/svg"
_REFERENCE = re.compile(r"^(?:url\()?#([^)]+)\)?$")
_LINK = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def css(theme: dict[str, str]) -> str:
    """A theme as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in theme.items())


@contextmanager
def style(paint: Paint) -> Iterator[None]:
    """Within it figures are drawn, all in this paint; texts are never read as formulas, and stay texts in SVG."""
    settings: dict[str, Any] = {
        "font.family": "sans-serif", "font.size": 9, "text.parse_math": False, "svg.fonttype": "none",
        "svg.hashsalt": "ftk", "text.color": paint["ink"], "axes.edgecolor": paint["line"],
        "axes.facecolor": "none", "axes.labelcolor": paint["soft"], "axes.labelsize": 9, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
        "axes.axisbelow": True, "grid.color": paint["line"], "grid.linewidth": 0.6, "xtick.color": paint["line"],
        "ytick.color": paint["line"], "xtick.labelcolor": paint["soft"], "ytick.labelcolor": paint["soft"],
        "xtick.major.size": 3, "ytick.major.size": 0, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
        "legend.frameon": False, "legend.fontsize": 8.5, "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
        "figure.facecolor": "none" if paint is PAGE else paint["ground"], "axes.formatter.useoffset": False,
    }  # fmt: skip
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # not what a reader has set for drawings of their own
        mpl.rcParams.update(settings)
        warnings.simplefilter("ignore")  # of letters that a font lacks, of numbers too large for an axis
        yield


def page_svg(draw: Draw, key: str, title: str) -> str:
    """A figure as an SVG element to stand in a page: themed, named for who cannot see it, its ids its own."""
    root = _tree(draw, PAGE, f"{key}-")
    width, height = (float(root.attrib.pop(side).removesuffix("pt")) for side in ("width", "height"))
    root.set("style", f"width: {width * 4 / 3:.0f}px; aspect-ratio: {width:.2f} / {height:.2f}")
    root.set("role", "img")
    root.set("aria-label", title)
    for element in root.iter():
        for name in ("style", "fill", "stroke"):
            if name in element.attrib:
                element.set(name, _STAND_IN.sub(_variable, element.attrib[name]))
    return ElementTree.tostring(root, encoding="unicode")


def file_svg(draw: Draw) -> bytes:
    """A figure as a file of its own, on a light ground."""
    return bytes(ElementTree.tostring(_tree(draw, LIGHT, ""), encoding="utf-8", xml_declaration=True))


def file_png(draw: Draw) -> bytes:
    """A figure as pixels, 200 to the inch, on a light ground."""
    written = io.BytesIO()
    figure = draw(LIGHT)
    figure.set_dpi(200)
    FigureCanvasAgg(figure).print_png(written, metadata={"Software": "ftk"})
    return written.getvalue()


def hinted(text: str) -> str:
    """The ``gid`` of an artist for which a page shows this text under the pointer."""
    return _HINT + text


_HINT = "hint:"


def _tree(draw: Draw, paint: Paint, prefix: str) -> ElementTree.Element:
    """The figure as SVG: hints in place, without ids that nothing refers to, the others with the prefix."""
    written = io.StringIO()
    FigureCanvasSVG(draw(paint)).print_svg(written, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(visible(written.getvalue()))
    referred = {
        name for element in root.iter() for value in element.attrib.values() for name in _REFERENCE.findall(value)
    }
    unwanted = [f"{{{_SVG}}}metadata", *[f"{{{_SVG}}}style"] * (paint is PAGE)]  # a style would hold for the whole page
    for element in list(root.iter()):
        for child in [child for child in element if child.tag in unwanted]:
            element.remove(child)
        name = element.attrib.pop("id", "")
        if name in referred:
            element.set("id", prefix + name)
        elif name.startswith(_HINT):
            said = ElementTree.Element(f"{{{_SVG}}}title")
            said.text = name.removeprefix(_HINT)
            element.insert(0, said)
        for key in (_LINK, "clip-path"):
            if key in element.attrib:
                element.set(key, element.attrib[key].replace("#", f"#{prefix}", 1))
    return root


def _variable(found: re.Match[str]) -> str:
    return f"var(--{NAMES[int(found[1], 16) - 1]})"
