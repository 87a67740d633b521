"""Live widgets for the notebook. All of them follow one pattern, of which ``ReplayPlayer`` is the model.

An engine offers frozen ``statistics()``, or a table with a ``version``; pure functions make texts, tables and pictures
of them (``shown``, ``path``, ``figures``; ``gap_texts``, ``gap_choice``; ``bus_readings``, ``bus_rates`` and
``bus_strip``, of the samples in ``bus_history``; ``latency_readings`` and ``latency_pictures``; ``clock_readings`` and
``clock_series``); a model without a widget decides what to show and obeys its views (``playing``, with ``commands``,
``remote`` and ``audience``; ``inspecting``, with ``gap_requests``, ``known_gaps`` and ``around``; ``monitoring``, with
``monitor_requests``; ``latency_watching`` and ``clock_watching``, with ``_sources`` and ``_requests`` of their own); a
thin widget carries it to the browser (``live``; ``player``, ``inspector``, ``bus_monitor``, ``latency_panel``,
``clock_panel``; the views share ``page.js`` and ``canvas.js``); one throttled loop refreshes all of them (``refresh``).
"""

from hftlab.widgets.bus_history import BusHistory
from hftlab.widgets.bus_monitor import BusMonitor
from hftlab.widgets.clock_panel import ClockPanel
from hftlab.widgets.inspector import GapInspector
from hftlab.widgets.latency_panel import LatencyPanel
from hftlab.widgets.player import ReplayPlayer

__all__ = ["BusHistory", "BusMonitor", "ClockPanel", "GapInspector", "LatencyPanel", "ReplayPlayer"]
