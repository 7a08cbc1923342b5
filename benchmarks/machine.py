"""What the figures were measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

from . import network, servers

_PACKAGES = ("uvloop", "trio", "anyio", "aiohttp", "starlette", "uvicorn")


def describe(directory: Path) -> dict[str, str]:
    """Return the machine, the versions, and the file system that the files lie on."""
    import asend

    nginx = servers.nginx_version()
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "congestion control": network.congestion_control(),
        "file system": file_system(directory),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "asend": asend.__version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        **({} if nginx is None else {"nginx": nginx}),
    }


def file_system(path: Path) -> str:
    """Return the type of the file system that a path lies on."""
    found, kind = Path("/"), "unknown"
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, of_point, *_ = line.split()
            mount = Path(point)
            # Later mounts cover earlier ones.
            if path.resolve().is_relative_to(mount) and mount.is_relative_to(found):
                found, kind = mount, of_point
    return kind


def _field(file: str, name: str) -> str:
    with open(file, encoding="utf-8") as lines:
        values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
        return next(values, "")
