"""``Committing``: what the next commit has to hold, and one commit on its way at a time, until the server has it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from hftlab.errors import BackgroundFailed, GroupLost, GroupTaken, StreamError
from hftlab.events.group_ports import Checkpoint, Commit, Committed, Effect, GroupConsumer, Letter
from hftlab.pipeline.refusals import MOST_KEPT, RefusedEffects

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Committing:
    """Collects effects, letters and settled letters, and saves them with a position. All on one loop.

    A commit that fails is tried again, the same one, until the server takes it: meanwhile no other is begun. Its serial
    number sees to it that it happens once, whichever of its replies were lost.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        checkpoint: Checkpoint,
        now_ns: Callable[[], int],
        *,
        on_saved: Callable[[Sequence[Letter]], None],
        on_trouble: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self.checkpoint = checkpoint
        self.saved = 0
        self.acknowledged = 0
        self.refused: deque[RefusedEffects] = deque(maxlen=MOST_KEPT)
        self.refusals = 0
        self.effects = 0
        self.trouble: StreamError | None = None
        self.failure: StreamError | None = None
        self.broken: BaseException | None = None
        self.state = checkpoint.state
        self._consumer, self._now_ns = consumer, now_ns
        self._on_saved, self._on_trouble, self._wake = on_saved, on_trouble, wake
        self._transactions: list[tuple[Effect, ...]] = []
        self._waiting_effects = 0
        self._settled: list[str] = []
        self._task: asyncio.Task[None] | None = None

    # -- collecting ---------------------------------------------------------------------------------------------------

    def add(self, effects: tuple[Effect, ...]) -> None:
        """Have a transaction done with the next commit."""
        self._transactions.append(effects)
        self._waiting_effects += len(effects)

    def settle(self, letter_id: str) -> None:
        """Have a letter taken away with the next commit."""
        self._settled.append(letter_id)

    @property
    def waiting_effects(self) -> int:
        """How many commands wait for the next commit."""
        return self._waiting_effects

    @property
    def settling(self) -> bool:
        """Whether letters wait for the next commit to take them away."""
        return bool(self._settled)

    @property
    def busy(self) -> bool:
        """Whether a commit is on its way."""
        return self._task is not None

    def dirty(self, position: int, held: Sequence[int], letters: int) -> bool:
        """Whether there is anything to save."""
        return bool(
            position != self.checkpoint.log_sequence
            or tuple(held) != self.checkpoint.held
            or self._transactions
            or self._settled
            or letters
        )

    # -- saving -------------------------------------------------------------------------------------------------------

    def begin(self, position: int, held: Iterable[int], state: bytes, letters: tuple[Letter, ...]) -> None:
        """Send a commit off: everything before ``position`` but ``held`` is handled, and all that was added belongs to
        it."""
        assert self._task is None
        commit = Commit(
            serial=self.checkpoint.serial + 1,
            log_sequence=position,
            held=tuple(int(one) for one in held),
            state=state,
            transactions=tuple(self._transactions),
            letters=letters,
            settled=tuple(self._settled),
        )
        self._transactions, self._settled, self._waiting_effects = [], [], 0
        self._task = asyncio.get_running_loop().create_task(self._save(commit), name="processor: commit")
        # Not at the end of the task's own code: one that is cancelled before its first step never gets there.
        self._task.add_done_callback(self._task_ended)

    async def settled(self) -> None:
        """Wait until no commit is on its way. Cancelling leaves it on its way."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """Give up a commit that is on its way; whether it happened is known to the server."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _save(self, commit: Commit) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    done = await self._consumer.commit(commit)
                    break
                except (GroupTaken, GroupLost) as error:
                    self.failure = error
                    return
                except StreamError as error:
                    if self.trouble is None:
                        self._on_trouble()
                    self.trouble = error
                    self._wake()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._saved(commit, done)
        except (KeyboardInterrupt, Exception) as error:
            # Whether it happened is not known here, so no other commit may have its serial number. The owner raises it.
            self.broken = error

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if self._task is not task:
            return  # closed
        self._task = None
        if task.cancelled():
            self.broken = BackgroundFailed("somebody cancelled a processor's commit: start the processor again")
        self._wake()

    def _saved(self, commit: Commit, done: Committed) -> None:
        now_ns = self._now_ns()
        self.trouble = None
        self.saved += 1
        self.acknowledged += done.acknowledged
        refused = dict(done.refused)
        self.effects += sum(len(effects) for at, effects in enumerate(commit.transactions) if at not in refused)
        for at, words in refused.items():
            commands = ", ".join(f"{effect.command} {effect.key}" for effect in commit.transactions[at][:8])
            self.refusals += 1
            self.refused.append(RefusedEffects(commands, words, now_ns))
        self.checkpoint = Checkpoint(
            log_sequence=commit.log_sequence,
            held=commit.held,
            serial=commit.serial,
            epoch=self.checkpoint.epoch,
            saved_ns=now_ns,
            state=commit.state,
        )
        kept = [
            msgspec.structs.replace(letter, letter_id=f"{commit.serial}-{place}")
            for place, letter in enumerate(commit.letters, 1)
        ]
        self._on_saved(kept)
