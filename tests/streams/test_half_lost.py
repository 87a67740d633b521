"""Groups that have lost their place in one of their streams: an XGROUP DESTROY by hand."""

from __future__ import annotations

import pytest

from hftlab.errors import GroupLost, GroupTaken
from hftlab.events import EventType
from hftlab.events.group_ports import Commit
from hftlab.streams import RedisStreamManager
from tests.streams.batches import log_sequences, mixed
from tests.streams.members import active, everything, member_of, pending


async def test_a_group_that_lost_its_place_in_a_stream_goes_on_from_its_position(streams: RedisStreamManager) -> None:
    await streams.append(mixed(300), session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    await consumer.commit(Commit(1, 200, held=(150, 160)))
    stream = streams._keys.session(1).streams[EventType.MARKET_DATA]
    assert await streams._connections.call("XGROUP", "DESTROY", stream, "g") == 1
    with pytest.raises(GroupLost):
        await consumer.read(EventType.MARKET_DATA, 10)
    fresh = await member_of(streams)
    # Whoever had the group may have been given what is given anew now.
    with pytest.raises(GroupTaken):
        await consumer.commit(Commit(2, 300))
    checkpoint = await fresh.acquire()
    assert checkpoint is not None
    assert (checkpoint.log_sequence, checkpoint.held, checkpoint.serial) == (200, (150, 160), 1)
    assert log_sequences(await everything(fresh)) == [150, 160, *range(200, 300)]
    await fresh.commit(Commit(2, 300))
    assert await pending(streams) == 0
