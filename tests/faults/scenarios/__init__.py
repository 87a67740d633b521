"""The scenarios, by what is damaged. Importing this package enters them all (see ``tests.faults.suite``).

A row may have several. Rows that are about handlers and lanes are tests of their own beside this folder: F13 in
``test_poison``, F14 in ``test_overload``.
"""

from tests.faults.scenarios import (  # noqa: F401
    damaged_log,
    dropped_replies,
    faulty_stream,
    full_server,
    group_destroyed,
    handed_over,
    hostile_bytes,
    killed_process,
    letters_kept,
    power_loss,
    processor_killed,
    secrets_hidden,
    server_killed,
    server_paused,
    several_producers,
    storm,
    told_to_end,
    trimmed_ahead,
    wrong_time,
)
