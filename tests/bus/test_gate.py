"""Who is a handler, and what that forbids."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.bus.coroutines import Coroutines, Suspended
from hftlab.bus.gate import Gate
from hftlab.errors import BusBusy, BusClosed


def test_whoever_asks_while_handlers_are_called_is_one() -> None:
    gate = Gate(Coroutines())
    assert not gate.is_handler()
    gate.refuse_handlers("it", "don't")
    gate.working = True
    assert gate.is_handler()
    with pytest.raises(BusBusy, match="it was called from a handler, which the bus waits for; don't"):
        gate.refuse_handlers("it", "don't")


async def test_an_async_handler_is_one_after_its_wait_and_a_task_beside_it_is_none() -> None:
    coroutines = Coroutines()
    gate = Gate(coroutines)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(gate.is_handler())

    async def handler() -> None:
        await ask()
        beside = asyncio.create_task(ask())
        await beside
        await ask()

    reached = coroutines.step(handler())
    assert isinstance(reached, Suspended)
    await reached
    assert answers == [True, False, True]


def test_a_closed_gate_says_so() -> None:
    gate = Gate(Coroutines())
    gate.check_open()
    gate.closed = True
    for check in (gate.check_open, gate.check_not_closed):
        with pytest.raises(BusClosed):
            check()
