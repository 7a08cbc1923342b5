"""The page that shows a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from urllib.parse import quote

from messages import Response

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.25rem; overflow-wrap: anywhere; }}
table {{ width: 100%; border-collapse: collapse; }}
th, td {{ padding: .3rem .5rem; text-align: left; border-bottom: 1px solid #8884; }}
th {{ font-weight: 600; opacity: .7; }}
td:first-child {{ overflow-wrap: anywhere; }}
td + td, th + th {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
tr:hover td {{ background: #8882; }}
a {{ text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
@media (max-width: 36rem) {{ td:last-child, th:last-child {{ display: none; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
<thead><tr><th>Name</th><th>Size</th><th>Modified (UTC)</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


@dataclass
class Entry:
    """One name of a folder; `mtime` in seconds since the epoch."""

    name: str
    is_folder: bool
    nbytes: int
    mtime: float


def listing_page(path: str, entries: list[Entry]) -> Response:
    """Return the page for the folder that is served as `path`: folders first, then by name."""
    ordered = sorted(entries, key=lambda entry: (not entry.is_folder, entry.name.casefold()))
    rows = [_row(entry) for entry in ordered]
    if path != "/":
        rows.insert(0, '<tr><td><a href="../">../</a></td><td></td><td></td></tr>')
    page = PAGE.format(title=escape(path), rows="\n".join(rows))
    return Response(HTTPStatus.OK, dict(HEADERS), page.encode())


def _row(entry: Entry) -> str:
    slash = "/" if entry.is_folder else ""
    # quote() leaves no colon either, so that no name can be taken for "javascript:".
    link = f'<a href="{quote(entry.name)}{slash}">{escape(entry.name)}{slash}</a>'
    size = "" if entry.is_folder else _size(entry.nbytes)
    modified = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime))
    return f"<tr><td>{link}</td><td>{size}</td><td>{modified}</td></tr>"


def _size(nbytes: int) -> str:
    if nbytes < 1024:
        return f"{nbytes} B"
    size, units = nbytes / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.1f} {units[0]}"
