"""From Redis Streams to handlers: consumer groups, checkpoints, transactions, dead letters.

``processor`` is what users hold; ``serving`` is its membership of a group, ``life`` one time as the active member:
``reading`` → ``merging`` → ``passage`` → bus, and ``committing`` what came of it.
"""

from hftlab.pipeline.dead_letters import DeadLetterList
from hftlab.pipeline.losses import Loss, Losses
from hftlab.pipeline.processor import EventProcessor
from hftlab.pipeline.retrying import RetryPolicy
from hftlab.pipeline.settings import ProcessorSettings
from hftlab.pipeline.statistics import ProcessorStatistics, State, StopReport
from hftlab.pipeline.transactions import Transaction

__all__ = [
    "DeadLetterList",
    "EventProcessor",
    "Loss",
    "Losses",
    "ProcessorSettings",
    "ProcessorStatistics",
    "RetryPolicy",
    "State",
    "StopReport",
    "Transaction",
]
