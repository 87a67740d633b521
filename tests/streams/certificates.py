"""An authority, and certificates that it has signed, made with OpenSSL's command line in some 20 ms each."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates:
    """An authority in a folder of its own, and a certificate of a server on loopback."""

    def __init__(self, folder: Path, names: str = "IP:127.0.0.1,DNS:localhost") -> None:
        self.folder = folder
        self.authority = folder / "ca.pem"
        folder.mkdir(parents=True, exist_ok=True)
        _openssl(
            folder, "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        self.certificate, self.key = self.sign("server", names)

    def sign(self, name: str, names: str) -> tuple[Path, Path]:
        """A certificate for ``names`` and its key."""
        (self.folder / "names").write_text(f"subjectAltName={names}\n")
        _openssl(
            self.folder, "req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )  # fmt: skip
        _openssl(
            self.folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    @property
    def settings(self) -> tuple[str, ...]:
        """Lines of a server's configuration."""
        return (
            f"tls-cert-file {self.certificate}",
            f"tls-key-file {self.key}",
            f"tls-ca-cert-file {self.authority}",
            "tls-auth-clients optional",
        )


def _openssl(folder: Path, *arguments: str) -> None:
    binary = shutil.which("openssl")
    if binary is None:
        pytest.skip("no openssl on the PATH to make certificates with")
    subprocess.run([binary, *arguments], cwd=folder, check=True, capture_output=True)
