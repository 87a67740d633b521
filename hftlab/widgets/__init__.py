"""Live widgets for the notebook. All of them follow one pattern, of which ``ReplayPlayer`` is the model.

An engine offers frozen ``statistics()``; pure functions make texts, tables and pictures of them (``shown``, ``path``,
``figures``); a model without a widget decides what to show and obeys its views (``playing``, with ``commands``,
``remote`` and ``audience``); a thin widget carries it to the browser (``player``, with ``player.js`` and
``chart.js``); one throttled loop refreshes all of them (``refresh``).
"""

from hftlab.widgets.player import ReplayPlayer

__all__ = ["ReplayPlayer"]
