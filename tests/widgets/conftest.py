"""What the tests of live widgets share."""

from __future__ import annotations

from tests.widgets.comms import comms, quick

__all__ = ["comms", "quick"]
