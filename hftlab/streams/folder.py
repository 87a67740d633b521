"""The folder that an embedded server keeps its data in: locked while a server lives there, ignored by git.

::

    .hftlab/
    ├── .gitignore      "*": nothing in here is ever committed
    ├── server.lock     flock(2) is held on it by the server; says who started it, and where its socket is (JSON)
    ├── server.log      what the server says
    └── data/           its append-only log

The lock lives as long as the server, not as the process that started it: an owner that was killed may leave a server
behind for the moment that it takes to close its files, and a second server over the same files would damage them.

The socket lies in a runtime folder of mode 700, and beside it, for the other processes of this user that share the
server, a file with its password. Nobody follows a lock file to a runtime folder that is not this user's alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from hftlab.errors import FolderInUse, ValidationError
from hftlab.streams.address import Credentials
from hftlab.streams.shared import Published

# Linux takes socket paths of up to 107 bytes, macOS of up to 103.
MAX_SOCKET_BYTES = 103
SOCKET_NAME = "server.sock"
_KEY_NAME = "server.key"
_KEY_BYTES = 1_024
_RUNTIME_PREFIX = "hftlab-"
_LOG_BYTES = 1 << 20


class DataFolder:
    """The paths of one data folder. Making it touches nothing; ``prepare`` does."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        # Resolved, so that a notebook that changes its working directory does not lose its server.
        self.path = Path(os.path.realpath(os.path.expanduser(directory)))
        self.data = self.path / "data"
        self.log = self.path / "server.log"
        self.lock = self.path / "server.lock"

    def prepare(self) -> None:
        """Make the folder, with its ``.gitignore``. Raises ValidationError where that can't be."""
        try:
            self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
        except OSError as error:
            raise ValidationError(
                f"directory is a folder for the server's data that can be made and written; {self.path}: "
                f"{error.strerror or error}"
            ) from None

    def try_lock(self) -> int | None:
        """A descriptor that holds the folder's lock, to be passed on to the server; None while somebody else has it.

        Raises FolderInUse where the lock is another user's.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise self.in_use() from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def sign(self, descriptor: int, **said: Any) -> None:
        """Say in the lock file who holds it."""
        text = json.dumps(said).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)

    def holder(self) -> dict[str, Any]:
        """What the lock file says of who holds it, or held it last: ``pid``, ``server_pid``, ``socket``."""
        try:
            said = json.loads(self.lock.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def published(self) -> Published | None:
        """Where the server is that holds the lock, or held it last; None where this user may not use it."""
        said = self.holder()
        pid, server_pid, socket = (said.get(name) for name in ("pid", "server_pid", "socket"))
        if not (isinstance(pid, int) and isinstance(server_pid, int) and isinstance(socket, str)):
            return None
        credentials = read_key(Path(socket).parent)
        return None if credentials is None else Published(pid, server_pid, socket, credentials)

    def in_use(self) -> FolderInUse:
        """The error that says who has the folder, and what to do."""
        said = self.holder()
        who = (
            f"the process {said['pid']} (its server is {said.get('server_pid')})"
            if "pid" in said
            else "another process"
        )
        return FolderInUse(
            f"the data folder {self.path} is in use by {who}, and can't be shared: its server does not answer, or is "
            "not one that this user started. Work there, or end it (await lab.close(), or restart that notebook's "
            "kernel), or give this one a folder of its own: EmbeddedServer('.hftlab-2'), Lab(directory='.hftlab-2')"
        )

    def clear_stale_runtime(self, keep: Path | None = None) -> None:
        """Remove the runtime folder that an owner which was killed left behind. Only while the lock is held."""
        socket = self.holder().get("socket")
        if isinstance(socket, str) and Path(socket).parent != keep:
            remove_runtime(Path(socket).parent)


def make_runtime() -> Path:
    """A new folder of mode 700 for the server's socket, whose path is short enough wherever the data are."""
    tried = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    for place in dict.fromkeys(filter(None, tried)):
        # mkdtemp adds eight characters to the prefix.
        length = len(os.fsencode(place)) + len(f"/{_RUNTIME_PREFIX}12345678/{SOCKET_NAME}")
        if length > MAX_SOCKET_BYTES:
            continue
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=_RUNTIME_PREFIX, dir=place))
    raise ValidationError(
        "the server's socket needs a writable folder whose path is short (a socket's path has up to "
        f"{MAX_SOCKET_BYTES} bytes); tried {', '.join(filter(None, tried))}: set XDG_RUNTIME_DIR or TMPDIR to one"
    )


def write_key(runtime: Path, credentials: Credentials) -> None:
    """Leave the password in a new runtime folder, for this user's other processes."""
    descriptor = os.open(runtime / _KEY_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, credentials.get_credentials()[-1].encode())
    finally:
        os.close(descriptor)


def read_key(runtime: Path) -> Credentials | None:
    """The password in a runtime folder; None where there is none, or the folder is not this user's alone."""
    with contextlib.suppress(OSError):
        place = runtime.lstat()
        if not stat.S_ISDIR(place.st_mode) or place.st_uid != os.getuid() or place.st_mode & 0o077:
            return None
        descriptor = os.open(runtime / _KEY_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return Credentials(None, os.read(descriptor, _KEY_BYTES).decode(errors="replace"))
        finally:
            os.close(descriptor)
    return None


def remove_runtime(folder: Path) -> None:
    """Remove a runtime folder, if it is one of ours."""
    with contextlib.suppress(OSError):
        if folder.name.startswith(_RUNTIME_PREFIX) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder)
