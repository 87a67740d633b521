"""NTP: what servers say of UTC, and which of them to believe.

An answer on its way: ``sockets`` ask and stamp, ``wire`` checks (``association`` keeps what is known of one server,
``polling`` says when to ask it), ``filter`` takes each server's best, ``selection`` finds those that agree, ``drift``
the frequency, ``estimator`` the whole; ``poller`` does it in the background, ``statistics`` is what it shows.
``cross_check`` asks ntplib the same.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hftlab.clock.ntp.cross_check import CrossCheck
    from hftlab.clock.ntp.estimator import Estimator
    from hftlab.clock.ntp.poller import NtpPoller

_HOMES = {
    "CrossCheck": "hftlab.clock.ntp.cross_check",
    "Estimator": "hftlab.clock.ntp.estimator",
    "NtpPoller": "hftlab.clock.ntp.poller",
}

__all__ = ["CrossCheck", "Estimator", "NtpPoller"]


def __getattr__(name: str) -> Any:
    # Imported when somebody asks: everybody imports hftlab.clock, and next to nobody a poller.
    if name not in _HOMES:
        raise AttributeError(f"hftlab.clock.ntp has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
