"""A server of each kind for the whole run; every test has a namespace of its own in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.servers import BINARIES, binary_of, managed, running_server


@pytest.fixture(scope="session", params=BINARIES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A running server, shared by all tests: they leave its configuration as it is."""
    binary = binary_of(request.param)
    yield from running_server(binary, tmp_path_factory.mktemp(request.param) / ".hftlab")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One running server, for what does not depend on which."""
    yield from running_server(binary_of("embedded"), tmp_path_factory.mktemp("one") / ".hftlab")


@pytest.fixture
async def streams(server: EmbeddedServer) -> AsyncIterator[RedisStreamManager]:
    """A manager on each kind of server, in a namespace of its own."""
    async with managed(server) as manager:
        yield manager


@pytest.fixture
async def one(embedded: EmbeddedServer) -> AsyncIterator[RedisStreamManager]:
    """A manager on one server, in a namespace of its own."""
    async with managed(embedded) as manager:
        yield manager
