"""Which interpreter runs a peer: this one where it can import it, else that of an environment made for it.

nautilus_trader, csp and hftbacktest pin other versions of numpy, pandas or pyarrow than the ones a user of hftlab has:
each gets an environment of its own in ``HFTLAB_BENCH_CACHE`` (``~/.cache/hftlab-bench``), made once, with pip.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contenders import Unavailable

CACHE = "HFTLAB_BENCH_CACHE"
INSTALL_S = 540.0
_COMPLETE = "complete"


@dataclass(frozen=True)
class Peer:
    """A peer: its module here, the package to import, and what pip installs."""

    module: str
    package: str
    requirement: str
    boards: tuple[str, ...]
    shared: bool = True
    """Whether the ``bench`` extra may bring it into the user's environment."""

    @property
    def distribution(self) -> str:
        return self.requirement.partition(">=")[0]

    @property
    def how_to_get_it(self) -> str:
        if self.shared:
            return "pip install -e '.[bench]', or leave --no-environments away"
        return "leave --no-environments away: it gets an environment of its own"


PEERS = (
    Peer("streamz", "streamz", "streamz>=0.6", ("S1",)),
    Peer("csp", "csp", "csp>=0.11", ("S1", "S2", "S3")),
    Peer("hftbacktest", "hftbacktest", "hftbacktest>=2.4", ("S3",)),
    Peer("nautilus", "nautilus_trader", "nautilus_trader>=1.220", ("S1",), shared=False),
)


def interpreter(peer: Peer, make: bool = True) -> Path:
    """Return the interpreter that has the peer, after making its environment where ``make`` allows.

    Raises Unavailable where there is none; making one takes up to a minute and a gigabyte.
    """
    if importlib.util.find_spec(peer.package) is not None:
        return Path(sys.executable)
    folder = _folder(peer)
    python = folder / "bin" / "python"
    if not (folder / _COMPLETE).exists():
        if not make:
            raise Unavailable(f"{peer.distribution} is not installed; {peer.how_to_get_it}")
        print(f"making an environment for {peer.distribution} in {folder} …", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)  # of a try that did not get to its end
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer.requirement, "numpy"],
        ):
            _run(command, peer)
        (folder / _COMPLETE).touch()
    return python


def _folder(peer: Peer) -> Path:
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "hftlab-bench").expanduser()
    mark = hashlib.sha256(f"{peer.requirement} {sys.base_prefix} {platform.machine()}".encode()).hexdigest()[:8]
    return cache / f"{peer.module}-py{sys.version_info.major}.{sys.version_info.minor}-{mark}"


def _run(command: list[str], peer: Peer) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{peer.distribution}: {' '.join(command[1:4])} took over {INSTALL_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise Unavailable(f"{peer.distribution} can't be installed: {last[:200]}")
