"""A folder as a page for people, or as JSON for programs, in blocks that are made as they go out.

Names are hostile. In text they are escaped, in links percent-encoded without exception, and the
page runs and loads nothing but what it was written with, which its policy names by hashes.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from figures import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Large enough that a block costs little beside its rows, small enough to keep many of them.
BLOCK = 64 * 1024
# Rows of one <tbody>, which a browser lays out together. The script of the page has the same.
GROUP = 200

PAGE = Path(__file__).with_name("listing.html").read_text(encoding="utf-8")
HEAD, TAIL = PAGE.split("<!--rows-->\n")

# The last part of a name in lower case, or all of it where it has no dot, and what icon it gets.
KINDS = {
    ending: kind
    for kind, endings in {
        "image": "jpg jpeg png gif webp avif svg bmp ico tif tiff heic heif jxl psd raw cr2 nef",
        "video": "mp4 m4v mkv webm mov avi wmv mpg mpeg flv ogv 3gp",
        "audio": "mp3 flac ogg oga opus wav m4a aac wma aif aiff mid midi",
        "archive": "zip gz tgz bz2 tbz xz txz zst 7z rar tar lz4 br iso img dmg deb rpm apk jar",
        "code": "py pyi js mjs ts jsx tsx c h cc cpp hpp rs go java kt swift rb php pl lua sh bash"
        " zsh ps1 bat sql r jl html htm css scss xml json yaml yml toml ini cfg conf makefile"
        " cmake dockerfile ipynb vue diff patch",
        "text": "txt md rst tex log csv tsv rtf doc docx odt epub srt nfo readme license copying"
        " authors changelog",
        "pdf": "pdf ps djvu",
    }.items()
    for ending in endings.split()
}


class Entry(NamedTuple):
    """One name of a folder; `mtime` in seconds since the epoch, `nbytes` is that of a file."""

    name: str
    is_folder: bool
    nbytes: int
    mtime: float


def _hash_of(tag: str) -> str:
    """Return how a policy names the one inline element of this kind, which may then be used."""
    found = re.search(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    assert found is not None
    return f"'sha256-{b64encode(sha256(found[1].encode()).digest()).decode()}'"


COMMON_FIELDS = {
    # It can be another one a moment later.
    "Cache-Control": "no-cache",
    # The access log keeps where its visitors come from, and no other site learns it.
    "Referrer-Policy": "same-origin",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}
HTML_FIELDS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')};"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    **COMMON_FIELDS,
}
JSON_FIELDS = {"Content-Type": "application/json", **COMMON_FIELDS}


def prefers_json(accept: str | None) -> bool:
    """Tell whether a client likes JSON better than HTML, by its field Accept (None: not sent).

    Source: RFC 9110, section 12.5.1.
    """
    weights = dict(map(_weighted, (accept or "").split(",")))
    return _weight(weights, "application/json") > _weight(weights, "text/html")


def _weighted(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        key, _, value = (part.strip() for part in parameter.partition("="))
        if key == "q":
            return name, float(value) if re.fullmatch(r"[01](\.[0-9]*)?", value) else 0.0
    return name, 1.0


def _weight(weights: dict[str, float], name: str) -> float:
    # What says more precisely what it means comes first.
    for each in (name, f"{name.partition('/')[0]}/*", "*/*"):
        if each in weights:
            return weights[each]
    return 0.0


def html_blocks(path: str, entries: Iterable[Entry]) -> Iterator[bytes]:
    """Make the page of a folder.

    Args:
        path: Where it is served, decoded, from "/" to "/".
        entries: In the order of the page. They are taken no further than the blocks are.
    """
    return _blocks(_html(path, entries))


def json_blocks(path: str, entries: Iterable[Entry]) -> Iterator[bytes]:
    """Make a JSON document that says the same as the page; arguments as there."""
    return _blocks(_json(path, entries))


def _blocks(pieces: Iterator[str]) -> Iterator[bytes]:
    block = bytearray()
    for piece in pieces:
        block += piece.encode()
        if len(block) >= BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _json(path: str, entries: Iterable[Entry]) -> Iterator[str]:
    yield f'{{"path": {json.dumps(path, ensure_ascii=False)}, "entries": ['
    separator = "\n"
    for entry in entries:
        item = {
            "name": entry.name,
            "type": "folder" if entry.is_folder else "file",
            "size": None if entry.is_folder else entry.nbytes,
            "modified": _utc(entry.mtime),
        }
        yield separator + json.dumps(item, ensure_ascii=False)
        separator = ",\n"
    yield "\n]}\n"


@dataclass(slots=True)
class _Totals:
    """What there is in a folder, counted while its rows go by."""

    folders: int = 0
    files: int = 0
    nbytes: int = 0

    def counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.folders += entry.is_folder
            self.files += not entry.is_folder
            self.nbytes += 0 if entry.is_folder else entry.nbytes
            yield entry

    def __str__(self) -> str:
        numbers = [(self.folders, "folder"), (self.files, "file")]
        parts = [f"{number:,} {word}{'s' * (number > 1)}" for number, word in numbers if number]
        return ", ".join([*parts, size_text(self.nbytes)] if self.files else parts)


def _html(path: str, entries: Iterable[Entry]) -> Iterator[str]:
    names = [name for name in path.split("/") if name]
    # No name can bring a placeholder in, as these are comments, and it is escaped.
    head = HEAD.replace("<!--path-->", _text(path)).replace("<!--crumbs-->", _crumbs(names))
    yield head.replace("<!--name-->", _label(names[-1]) if names else "Home")
    if names:
        yield PARENT
    totals = _Totals()
    for number, entry in enumerate(totals.counted(entries)):
        if number % GROUP == 0:
            # The end of the one before may be left out.
            yield '<tbody class="rows">\n'
        yield _row(entry)
    if not (totals.folders or totals.files):
        yield EMPTY
    yield TAIL.replace("<!--totals-->", str(totals))


UP = '<a id="parent" href="../">Parent folder</a>'
PARENT = f'<tbody class="parent"><tr class="up"><td>{UP}</td></tr>\n'
EMPTY = '<tbody id="empty"><tr><td class="message">This folder is empty.</td></tr>\n'


def _crumbs(names: list[str]) -> str:
    """Return links to the folders above, which are relative: a proxy may serve all of it deeper."""
    labels = ['<span class="icon home"></span>Home', *map(_label, names)]
    ups = ["../" * depth for depth in range(len(names), 0, -1)]
    # The last name is where we are, and has no way up.
    return "".join(
        f'<li><a href="{up}">{label}</a></li>' for up, label in zip(ups, labels, strict=False)
    )


def _row(entry: Entry) -> str:
    # No colon is left that would make a scheme of what is before it, no slash that makes a host.
    link, moment = quote(entry.name, safe=""), _utc(entry.mtime)
    if entry.is_folder:
        kind, slash, size = "folder", "/", "\u2013"
    else:
        kind, slash = KINDS.get(entry.name.rpartition(".")[2].lower(), "other"), ""
        exact = "1 byte" if entry.nbytes == 1 else f"{entry.nbytes:,} bytes"
        size = f'<data value="{entry.nbytes}" title="{exact}">{size_text(entry.nbytes)}</data>'
    return (
        f'<tr class="{kind}"><td><a href="{link}{slash}">{_label(entry.name)}{slash}</a></td>'
        f"<td>{size}</td>"
        f'<td><time datetime="{moment}">{moment[:10]} {moment[11:16]}</time></td></tr>\n'
    )


def _label(name: str) -> str:
    # Letters of another direction, or what overrides it, end with the element.
    return f"<bdi>{_text(name)}</bdi>"


def _text(text: str) -> str:
    # A parser makes a line feed of a carriage return, unless that is written as a reference.
    return escape(text).replace("\r", "&#13;")


def _utc(mtime: float) -> str:
    """Return a moment as ISO 8601 has it, or the nearest one that it has."""
    try:
        moment = datetime(1970, 1, 1) + timedelta(seconds=int(mtime // 1))
    except OverflowError:
        moment = datetime.max if mtime > 0 else datetime.min
    return f"{moment.isoformat(timespec='seconds')}Z"
