"""NTP: what servers say of UTC, and which of them to believe.

An answer on its way: ``sockets`` ask and stamp, ``wire`` checks (``association`` keeps what is known of one server,
``polling`` says when to ask it), ``filter`` takes each server's best, ``selection`` finds those that agree, ``drift``
the frequency, ``estimator`` the whole; ``poller`` does it in the background, ``statistics`` is what it shows.
``cross_check`` asks ntplib the same.
"""

from hftlab.clock.ntp.cross_check import cross_check
from hftlab.clock.ntp.estimator import Estimator
from hftlab.clock.ntp.poller import NtpPoller

__all__ = ["Estimator", "NtpPoller", "cross_check"]
