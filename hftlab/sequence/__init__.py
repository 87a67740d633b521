"""Order that can be proven: every event once, in its source's order, and every gap seen.

Start at ``sequencer``; ``ordering`` is what a user decides, ``rules`` how sources number, ``gaps`` and ``aside`` what
is shown, ``dedup`` what was delivered before; ``layout`` and ``kernels`` are how.
"""

from hftlab.sequence import rules
from hftlab.sequence.aside import AsideReason, SetAside
from hftlab.sequence.dedup import Deduplicated, Deduplicator, DedupStatistics
from hftlab.sequence.gaps import GAP, Gap, GapReason, GapState, GapTable, gap_of
from hftlab.sequence.ordering import Ordering
from hftlab.sequence.sequencer import Sequenced, Sequencer
from hftlab.sequence.sliding import Slid, SlidingStatistics, SlidingWindow
from hftlab.sequence.statistics import OrderStatistics
from hftlab.sequence.thinning import ends_of, latest_ns, thinned
from hftlab.sequence.wording import duration_text, numbers_text

__all__ = [
    "Sequencer", "Sequenced", "Ordering", "GapTable", "Gap", "GapState", "GapReason", "SetAside", "AsideReason",
    "Deduplicator", "Deduplicated", "DedupStatistics",
    "SlidingWindow", "Slid", "SlidingStatistics",
    "OrderStatistics", "rules", "GAP", "gap_of", "ends_of", "latest_ns", "thinned", "duration_text", "numbers_text",
]  # fmt: skip
