"""Lines, boxes and text as SVG, in colors for light and for dark pages.

Text stays text, in the font of the reader: nothing is measured, so that the same drawing gives the
same bytes everywhere. What must not overlap reckons with `width_of`, which is that of a wide font.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of the height of the letters: what DejaVu Sans, the widest of the usual ones, needs on average.
_LETTER, _BOLD_LETTER = 0.60, 0.68
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class _Letters:
    size: float
    is_bold: bool = False
    color: str = "text"


LETTERS: Mapping[str, _Letters] = {
    "title": _Letters(13, is_bold=True),
    "heading": _Letters(11.5, is_bold=True),
    "ours": _Letters(11.5, is_bold=True),
    "others": _Letters(11.5),
    "faint": _Letters(11.5, color="faint"),
    "small": _Letters(10, color="faint"),
}
# The page's own color shows through. Our bars differ from the others in brightness too, and our
# names are bold: colors alone would not tell everyone.
THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"text": "#1f2328", "faint": "#59636e", "ours": "#0860ca", "others": "#9aa4ae"},
    "dark": {"text": "#f0f6fc", "faint": "#9198a1", "ours": "#4c9aff", "others": "#5c646e"},
}


def width_of(text: str, kind: str) -> float:
    letters = LETTERS[kind]
    return len(text) * letters.size * (_BOLD_LETTER if letters.is_bold else _LETTER)


@dataclass
class Drawing:
    """What is drawn so far. Lengths are pixels, y counts downwards."""

    width: float
    _parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, kind: str, anchor: str = "start") -> None:
        at = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._add(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{at}>{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        size = f'width="{width:.1f}" height="{height:.1f}"'
        self._add(f'<rect class="{color}" x="{x:.1f}" y="{y:.1f}" {size}/>')

    def dot(self, x: float, y: float, radius: float, color: str) -> None:
        self._add(f'<circle class="{color}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')

    def whisker(self, low: float, high: float, y: float, cap: float) -> None:
        ends = (f"M{x:.1f} {y - cap:.1f}v{2 * cap:.1f}" for x in (low, high))
        self._add(f'<path class="whisker" d="{"".join(ends)}M{low:.1f} {y:.1f}H{high:.1f}"/>')

    def upright(self, x: float, top: float, bottom: float, kind: str) -> None:
        self._add(f'<path class="{kind}" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>')

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def render(self, height: float, theme: Mapping[str, str], title: str) -> str:
        """Return the whole as a document, with a title for those who do not see it."""
        size = f"{self.width:.0f} {height:.0f}"
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {size}" '
                f'width="{self.width:.0f}" height="{height:.0f}">',
                f"<title>{escape(title)}</title>",
                f"<style>{_style(theme)}</style>",
                *self._parts,
                "</svg>\n",
            )
        )


def _style(theme: Mapping[str, str]) -> str:
    texts = (
        f"text.{kind} {{ font-size: {letters.size:g}px; fill: {theme[letters.color]}; "
        f"font-weight: {'bold' if letters.is_bold else 'normal'} }}"
        for kind, letters in LETTERS.items()
    )
    return "\n".join(
        (
            "",
            f"text {{ font-family: {_FONT} }}",
            *texts,
            *(f".{color} {{ fill: {theme[color]} }}" for color in ("ours", "others")),
            f"path {{ fill: none; stroke: {theme['text']} }}",
            f"path.grid {{ stroke: {theme['faint']}; opacity: 0.4 }}",
            "path.aim { stroke-dasharray: 4 2 }",
            "",
        )
    )
