"""What HTTP asks of who answers with a file, whatever server or framework carries the answer.

Nothing here sends, and only `FileCache.look_up` and `look_beside` may wait: `FileCache` keeps files
open, `preferred` chooses the coding, `answer` says which status and which parts of the file it is.
"""

from ._answers import Answer, Part, answer
from ._conditions import CONDITIONS
from ._encodings import preferred
from ._open_files import FILES, FileCache, IrregularFileError, OpenFile

__all__ = [
    "CONDITIONS",
    "FILES",
    "Answer",
    "FileCache",
    "IrregularFileError",
    "OpenFile",
    "Part",
    "answer",
    "preferred",
]
