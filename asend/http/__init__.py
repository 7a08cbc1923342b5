"""What HTTP asks of who answers with a file, whatever server or framework carries the answer.

`FileCache` keeps files open, `preferred` chooses the coding, `answer` says which status and which
parts of the file it is, and `send_parts` sends these. What opens files may wait for a disk, and is
for a worker thread: `FileCache.look_up`, `look_beside` and `OpenFile(path)`. Nothing else blocks.
"""

from ._answers import Answer, Part, answer
from ._conditions import CONDITIONS
from ._encodings import preferred
from ._open_files import FILES, FileCache, IrregularFileError, OpenFile
from ._sending import TruncatedError, send_parts

__all__ = [
    "CONDITIONS",
    "FILES",
    "Answer",
    "FileCache",
    "IrregularFileError",
    "OpenFile",
    "Part",
    "TruncatedError",
    "answer",
    "preferred",
    "send_parts",
]
