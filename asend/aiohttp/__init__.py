"""Files in aiohttp's handlers: sent by the kernel on asyncio and uvloop, with limits on slow peers.

`FileResponse` takes the place of `aiohttp.web.FileResponse`, and `static` that of
`aiohttp.web.static`. Tested with aiohttp 3.11.18 and 3.14.5, of which it uses some private methods.
"""

from ..http import FileCache
from ._file_responses import FileResponse
from ._static import StaticOptions, StaticResource, add_static, static

__all__ = [
    "FileCache",
    "FileResponse",
    "StaticOptions",
    "StaticResource",
    "add_static",
    "static",
]
