"""The skew between a recorder's clock and a venue's, from the data alone."""

from hftlab.clock.skew.envelope import Envelope
from hftlab.clock.skew.estimation import estimate_skew, skew_of_envelope
from hftlab.clock.skew.skew import Skew

__all__ = ["Envelope", "Skew", "estimate_skew", "skew_of_envelope"]
