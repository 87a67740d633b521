"""A real JupyterLab server of the tests' own: nothing of the user's configuration, gone with the test."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_S = 60.0
END_S = 20.0


@dataclass(frozen=True)
class LabServer:
    """A running server: where it is, what opens it, and the folder whose notebooks it serves."""

    url: str
    token: str
    folder: Path
    log: Path

    def kernels(self) -> list[dict[str, Any]]:
        """The kernels that it runs."""
        return list(self._get("/api/kernels"))

    def end_kernels(self) -> None:
        """End all sessions and their kernels."""
        for session in self._get("/api/sessions"):
            with contextlib.suppress(urllib.error.HTTPError):
                self._get(f"/api/sessions/{session['id']}", method="DELETE")

    def page(self, notebook: str) -> str:
        """The address of a notebook, opened alone in a fresh workspace."""
        return f"{self.url}/lab/tree/{notebook}?token={self.token}&reset"

    def _get(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            content = answer.read()
        return json.loads(content) if content else None


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[LabServer]:
    """Start a server on a free port; its own process alone is ended with the block, and it ends its kernels."""
    root = folder / "notebooks"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "HFTLAB_"))}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
                 "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"):  # fmt: skip
        environment[name] = str(folder / name.lower())
        Path(environment[name]).mkdir(parents=True)
    root.mkdir()
    _settings(Path(environment["JUPYTERLAB_SETTINGS_DIR"]))
    token = secrets.token_hex(16)
    port = _free_port()
    log = folder / "server.log"
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={root}",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            server = LabServer(f"http://127.0.0.1:{port}", token, root, log)
            _wait_until_ready(server, process)
            yield server
        finally:
            _end(process)


def _settings(folder: Path) -> None:
    """No news from the network, and no dialogue that asks for it."""
    place = folder / "@jupyterlab" / "apputils-extension"
    place.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (place / "notification.jupyterlab-settings").write_text(json.dumps(quiet))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: LabServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            server.kernels()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                told = server.log.read_text(errors="replace")[-3_000:]
                raise RuntimeError(f"JupyterLab did not start within {READY_S:g} s ({error}):\n{told}") from error
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
