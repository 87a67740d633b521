"""What the command line takes: its commands, their options, and what each is for."""

from __future__ import annotations

import argparse

from hftlab import __version__


def make_parser() -> argparse.ArgumentParser:
    """A parser whose result names its command as ``name``; the rest is as the options are called."""
    parser = argparse.ArgumentParser(
        prog="hftlab", description="A Jupyter-first research and simulation kernel for high-frequency trading."
    )
    parser.add_argument("--version", action="version", version=f"hftlab {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, dest="name", metavar="COMMAND")

    demo = commands.add_parser("demo", help="record a simulated session, replay it twice, and say what it held")
    demo.add_argument("--seconds", type=float, default=60.0, help="how long the simulated session lasts (60)")
    demo.add_argument("--seed", type=int, default=1, help="the simulation's seed (1)")
    demo.add_argument("--html", metavar="FILE", help="also write a report with figures, one file that opens anywhere")

    record = commands.add_parser("record", help="read captures into a session")
    record.add_argument("files", nargs="+", metavar="FILE", help="captures, in the order of their time")
    record.add_argument("--session", help="the session's name (the first file's)")
    _add_format(record, required=True)
    _add_server(record)

    replay = commands.add_parser("replay", help="replay a session and say what it held, and its digest")
    replay.add_argument("session", nargs="?", help="the session's name (the one recorded last)")
    replay.add_argument("--start", help="a time such as 23:54:30 or 2024-08-08T23:54:30Z, or an event id")
    replay.add_argument("--end", help="the same; not included")
    replay.add_argument("--type", action="append", dest="types", help="market, order, fill or signal; may be repeated")
    replay.add_argument("--symbol", action="append", dest="symbols", help="only this symbol; may be repeated")
    replay.add_argument("--prefetch", type=int, default=4, help="reads that are under way at once (4)")
    _add_server(replay)

    gaps = commands.add_parser("gaps", help="say where a capture's or a session's data is broken")
    gaps.add_argument("what", nargs="+", metavar="WHAT", help="a session's name; with --format, captures as in record")
    gaps.add_argument("--deadline", type=float, help="seconds until what is missing is given up (0.1)")
    gaps.add_argument("--window", type=int, help="messages that a source may hold meanwhile (1024)")
    gaps.add_argument("--reorder", type=float, help="seconds to hold counters that are shared, to sort them (0)")
    gaps.add_argument("--rows", type=int, default=20, help="the longest that a table gets (20)")
    gaps.add_argument(
        "--csv", nargs="?", const="-", metavar="FILE",
        help="all gaps as CSV: to standard output, in place of the tables, or to a new file",
    )  # fmt: skip
    _add_format(gaps, required=False)
    _add_server(gaps)

    groups = commands.add_parser("groups", help="say where the consumer groups of a session stand")
    groups.add_argument("session", help="the session's name")
    groups.add_argument("--csv", action="store_true", help="as CSV, in place of the table")
    _add_server(groups)

    letters = commands.add_parser("letters", help="show what a group's handlers did not get done, and why")
    letters.add_argument("session", help="the session's name")
    letters.add_argument("group", help="the group's name")
    letters.add_argument("--rows", type=int, default=20, help="the longest that the table gets (20)")
    letters.add_argument("--csv", action="store_true", help="all of them as CSV, in place of the table")
    _add_server(letters)

    doctor = commands.add_parser("doctor", help="say what this machine's clock, stamps, memory and server are good for")
    doctor.add_argument(
        "--ntp", action="append", metavar="SERVER",
        help="compare the clock with this server; may be repeated (HFTLAB_NTP; nobody is asked without)",
    )  # fmt: skip
    doctor.add_argument("--url", help="a Redis or Valkey server of yours (HFTLAB_URL; else the embedded one is tried)")
    doctor.add_argument("--directory", default=".hftlab", help="where the embedded server's data would be (.hftlab)")
    doctor.add_argument("--seconds", type=float, default=2.0, help="the longest wait for any server (2)")
    doctor.add_argument("--json", action="store_true", help="all of it for machines, in place of the text")

    commands.add_parser("compile", help="compile the numba kernels into their cache, so that nobody waits later")

    notebooks = commands.add_parser("lab", help="open JupyterLab on the notebooks; further options are JupyterLab's")
    notebooks.add_argument("--directory", default="hftlab-notebooks", help="where they are copied (hftlab-notebooks)")
    return parser


def _add_format(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--format", required=required, help="the captures' format, such as binance or csv")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME[=VALUE]",
        help="an option of the format, such as merge for files of redundant lines; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help="csv: as in volume=amount; may be repeated"
    )  # fmt: skip
    parser.add_argument("--symbol", help="the symbol, where the files don't say")
    parser.add_argument(
        "--times", choices=("reject", "flag", "keep"),
        help="events whose times can't be true (the certain ones are rejected, the doubtful flagged)",
    )  # fmt: skip


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a Redis or Valkey server of yours (HFTLAB_URL; else an embedded one)")
    parser.add_argument("--directory", default=".hftlab", help="the embedded server's data (.hftlab)")
    parser.add_argument("--frame-rows", type=int, default=1_024, help="rows in one entry of a stream (1024)")
