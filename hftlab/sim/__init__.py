"""Made-up markets: ``market`` gives quotes and trades that are the same bytes for the same seed, everywhere.

Start at ``market``; then ``arrivals`` (bursts), ``quoting`` (prices and sizes), ``latency``, and ``draws`` (why it is
the same bytes).
"""

from hftlab.sim.latency import Latency
from hftlab.sim.market import market

__all__ = ["market", "Latency"]
