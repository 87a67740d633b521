"""Faults run against a server of their own, which they may kill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hftlab.streams import EmbeddedServer
from tests.faults import victims
from tests.streams.servers import BINARIES, binary_of


@pytest.fixture(params=BINARIES)
async def victim(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that syncs its log before it answers, and that the test may kill."""
    async with victims.victim(binary_of(request.param), tmp_path) as server:
        yield server
