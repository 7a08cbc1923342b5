"""A FUSE file system on which every name is a file, and every read takes a while.

`python -m benchmarks.slow_files MOUNTPOINT` serves until it is unmounted.
"""

from __future__ import annotations

import stat
import sys
import time

SIZE = 1024 * 1024
SECONDS_PER_READ = 0.1


def _main(mount: str) -> None:
    # Here, as those who want the constants need no FUSE.
    import mfusepy  # type: ignore[import-untyped]  # it has no stubs

    class SlowFiles(mfusepy.Operations):  # type: ignore[misc]  # as untyped as its module
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": SIZE}

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            time.sleep(SECONDS_PER_READ)
            return bytes(max(0, min(size, SIZE - offset)))

    mfusepy.FUSE(SlowFiles(), mount, foreground=True, ro=True)


if __name__ == "__main__":
    _main(sys.argv[1])
