"""Made-up markets and broken feeds: the same bytes for the same seed, everywhere.

Start at ``market``; then ``arrivals`` (bursts), ``quoting`` (prices and sizes), ``latency``, and ``draws`` (why it is
the same bytes). ``faults`` breaks any batch on purpose, and says in ``truth`` what it did: ``rates`` (what can be asked
for), ``messages`` (what it happens to), ``plan`` (to which ones), ``arrange`` (in what order they arrive then).
``LiveFeed`` sends any batch to a bus as if it came in now: ``pace`` says how much is due when, ``traffic`` what it is.
"""

from hftlab.sim.faults import faults
from hftlab.sim.latency import Latency
from hftlab.sim.live import FeedStatistics, LiveFeed
from hftlab.sim.market import market
from hftlab.sim.messages import numbered
from hftlab.sim.pace import Burst
from hftlab.sim.rates import Faults
from hftlab.sim.truth import Fault, FaultTruth, FaultyBatch

__all__ = [
    "market", "faults", "numbered", "Latency", "Fault", "Faults", "FaultTruth", "FaultyBatch",
    "LiveFeed", "Burst", "FeedStatistics",
]  # fmt: skip
