"""Servers that speak TLS, by URL: trusted by their certificate and name, and errors that say what to set."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hftlab.errors import ServerUnreachable, StreamError, ValidationError
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import log_sequences, trades
from tests.streams.certificates import Certificates
from tests.streams.cluster import cluster_of, condition, free_ports, namespaces_on
from tests.streams.servers import binary_of, fresh_namespace, in_a_loop


class Secure(NamedTuple):
    """A server with TLS on a port of loopback, and its certificates."""

    port: int
    made: Certificates
    process: subprocess.Popen[bytes]

    def url(self, options: str = "", *, host: str = "127.0.0.1") -> str:
        return f"rediss://{host}:{self.port}?ssl_ca_certs={self.made.authority}{options}"


@contextmanager
def secure_server(folder: Path, made: Certificates, *settings: str) -> Iterator[Secure]:
    """Debian's redis-server with TLS."""
    (port,) = free_ports(1)
    lines = (f"port 0\ntls-port {port}", "bind 127.0.0.1", 'save ""', f"dir {folder}", *made.settings, *settings)
    process = subprocess.Popen(
        [str(binary_of("redis-server")), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write("\n".join((*lines, "")).encode())
        process.stdin.close()

        yield Secure(port, made, process)
    finally:
        process.kill()
        process.wait()


async def ready(secure: Secure) -> None:
    """Return once it answers; skips where this server was built without TLS."""
    certificate, key = map(str, secure.made.sign("client", "DNS:client"))

    async def answers() -> bool:
        if secure.process.poll() is not None:
            pytest.skip("this redis-server was built without TLS")
        try:
            async with Redis(
                host="127.0.0.1", port=secure.port, ssl=True, ssl_ca_certs=str(secure.made.authority),
                ssl_check_hostname=False, ssl_certfile=certificate, ssl_keyfile=key,
            ) as client:  # fmt: skip
                return bool(await client.ping())
        except (RedisError, OSError):
            return False

    await condition(answers)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A server that shows a certificate, and does not ask for the client's."""
    folder = tmp_path_factory.mktemp("tls")
    with secure_server(folder, Certificates(folder / "made")) as running:
        in_a_loop(ready(running))
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A server that wants to see the client's certificate."""
    folder = tmp_path_factory.mktemp("strict")
    with secure_server(folder, Certificates(folder / "made"), "tls-auth-clients yes") as running:
        in_a_loop(ready(running))
        yield running


def impatient(url: str, deadline_s: float = 0.3) -> RedisStreamManager:
    return RedisStreamManager(url, namespace=fresh_namespace(), deadline_s=deadline_s, progress=False, seed=1)


async def works(url: str) -> None:
    async with impatient(url, 20.0) as manager:  # a slow machine is none that refuses
        await manager.append(trades(3_000), session="day")
        assert log_sequences(await manager.range("day")) == list(range(3_000))
        tail = manager.tail("day", after=0)
        assert len(await anext(tail))
        await tail.aclose()  # type: ignore[attr-defined]
        assert manager.statistics().retries == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_with_tls_is_used_like_any_other(secure: Secure, host: str) -> None:
    await works(secure.url(host=host))


async def test_a_certificate_that_nobody_known_has_signed_is_refused_with_what_to_set(
    secure: Secure, tmp_path: Path
) -> None:
    other = Certificates(tmp_path / "other")
    for url in (
        f"rediss://127.0.0.1:{secure.port}",
        f"rediss://127.0.0.1:{secure.port}?ssl_ca_certs={other.authority}",
    ):
        manager = impatient(url)
        with pytest.raises(ServerUnreachable, match=r"certificate verify failed.*\?ssl_ca_certs=/path/to/ca\.pem"):
            await manager.open()
        assert manager.statistics().retries == 0, "another try would not help"
        await manager.close()


async def test_a_certificate_of_another_host_is_refused_unless_names_go_unchecked(tmp_path: Path) -> None:
    made = Certificates(tmp_path / "made", "DNS:example.org,IP:10.0.0.1")
    with secure_server(tmp_path, made) as running:
        await ready(running)
        for host in ("127.0.0.1", "localhost"):
            manager = impatient(running.url(host=host))
            with pytest.raises(ServerUnreachable, match=r"another host's: write a host .*\?ssl_check_hostname=false"):
                await manager.open()
            await manager.close()
            await works(running.url("&ssl_check_hostname=false", host=host))


async def test_a_server_that_wants_a_clients_certificate_is_shown_one(strict: Secure, tmp_path: Path) -> None:
    certificate, key = strict.made.sign("client", "DNS:client")
    await works(strict.url(f"&ssl_certfile={certificate}&ssl_keyfile={key}"))
    foreign = Certificates(tmp_path / "other")
    for options in ("", f"&ssl_certfile={foreign.certificate}&ssl_keyfile={foreign.key}"):
        manager = impatient(strict.url(options))
        with pytest.raises(ServerUnreachable, match=r"\?ssl_certfile=/path/to/client\.pem&ssl_keyfile="):
            await manager.open()
        await manager.close()


async def test_files_that_are_no_certificates_are_told(secure: Secure) -> None:
    made = secure.made
    for options in (f"&ssl_certfile={made.certificate}&ssl_keyfile={made.folder / 'ca.key'}",):
        with pytest.raises(ServerUnreachable, match="are PEM files"):
            await impatient(secure.url(options)).open()
    with pytest.raises(ServerUnreachable, match="are PEM files"):
        await impatient(f"rediss://localhost:{secure.port}?ssl_ca_certs={made.key}").open()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ("ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs .* is a file .* got '/nowhere/ca.pem'"),
        ("ssl_keyfile=/nowhere/key", "ssl_keyfile .* is a file"),
        ("ssl_cert_reqs=maybe", "one of required, optional, none; got 'maybe'"),
    ],
)
def test_options_that_can_not_work_are_refused_at_once(options: str, rule: str) -> None:
    for scheme in ("rediss", "rediss+cluster"):
        with pytest.raises(ValidationError, match=rule):
            RedisStreamManager(f"{scheme}://localhost?{options}")


async def test_plain_words_to_a_port_with_tls_and_the_other_way_round_are_told_apart_from_silence(
    secure: Secure, tmp_path: Path
) -> None:
    manager = impatient(f"redis://127.0.0.1:{secure.port}")
    with pytest.raises(StreamError, match="If it speaks TLS, write rediss:// instead of redis://"):
        await manager.open()
    await manager.close()
    async with EmbeddedServer(tmp_path / ".hftlab") as plain:
        (port,) = free_ports(1)
        async with RedisStreamManager(plain.address) as local:
            await local._connections.call("CONFIG", "SET", "bind", "127.0.0.1", "port", port)
        manager = impatient(f"rediss://127.0.0.1:{port}")
        with pytest.raises(ServerUnreachable, match="If it does not speak TLS, write redis:// instead of rediss://"):
            await manager.open()
        await manager.close()


async def test_a_cluster_with_tls_is_found_too(secure: Secure, tmp_path: Path) -> None:
    binary = binary_of("redis-server")
    async with cluster_of(binary, tmp_path, tls=secure.made) as cluster:
        url = f"rediss+cluster://127.0.0.1:{cluster.nodes[0].port}"
        with pytest.raises(ServerUnreachable, match=r"\?ssl_ca_certs="):
            await impatient(url).open()
        namespace = namespaces_on(2)[0]
        authority = os.fspath(secure.made.authority)
        async with RedisStreamManager(f"{url}?ssl_ca_certs={authority}", namespace=namespace) as manager:
            await manager.append(trades(100), session="day")
            assert len(await manager.range("day")) == 100
            assert manager.address.connection["port"] == cluster.nodes[2].port
