"""TCP's congestion control, which decides what is fast on a loopback too.

CUBIC is what Linux has by default. BBR, which some machines have instead, paces by timers what it
sends: to send 100 MiB takes twice of the CPU time, and none of it is the server's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# A network of one's own can have only what is allowed to all.
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_SET_AND_RUN = f'ip link set lo up && echo "$0" > {_SETTING} && exec "$@"'


def congestion_control() -> str:
    """Return what new connections have here."""
    return _SETTING.read_text(encoding="ascii").strip() if _SETTING.exists() else "unknown"


def allowed() -> list[str]:
    """Return the names of those that `run_with` can choose: what is had, and what is allowed."""
    names = _ALLOWED.read_text(encoding="ascii").split() if _ALLOWED.exists() else []
    return list(dict.fromkeys([congestion_control(), *names]))


def run_with(name: str) -> None:
    """Run this program again with another congestion control, in a network of its own.

    Nothing of the machine is changed. Does not return where it is not that already.

    Raises:
        OSError: There is no program `unshare` (of util-linux).
    """
    if congestion_control() == name:
        return
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    program = [sys.executable, "-m", __package__, *sys.argv[1:]]
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "--net", *as_root, "sh", "-c", _SET_AND_RUN, name, *program])
