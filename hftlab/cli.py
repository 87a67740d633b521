"""The command line: ``hftlab lab · demo · record · replay · compile``."""

from __future__ import annotations

import argparse
import contextlib
import html
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

import hftlab
from hftlab.errors import HftlabError, UnknownSession, ValidationError

if TYPE_CHECKING:
    from hftlab.lab import Lab
    from hftlab.monitor import SessionSummary
    from hftlab.replay import Replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error told in a line, 130 if interrupted, 141 if unread."""
    parser = _parser()
    parsed, further = parser.parse_known_args(arguments)
    if further and parsed.name != "lab":
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    parsed.further = further
    try:
        return int(parsed.command(parsed) or 0)
    except HftlabError as error:
        print(f"hftlab {parsed.name}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has seen enough; what Python would flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(f"hftlab {parsed.name}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hftlab", description="A Jupyter-first research and simulation kernel for high-frequency trading."
    )
    parser.add_argument("--version", action="version", version=f"hftlab {hftlab.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, dest="name", metavar="COMMAND")

    demo = commands.add_parser("demo", help="record a simulated session, replay it twice, and say what it held")
    demo.add_argument("--seconds", type=float, default=60.0, help="how long the simulated session lasts (60)")
    demo.add_argument("--seed", type=int, default=1, help="the simulation's seed (1)")
    demo.add_argument("--html", metavar="FILE", help="also write a report with figures, one file that opens anywhere")
    demo.set_defaults(command=_demo)

    record = commands.add_parser("record", help="read captures into a session")
    record.add_argument("files", nargs="+", metavar="FILE", help="captures, in the order of their time")
    record.add_argument("--format", required=True, help="their format, such as binance or csv")
    record.add_argument("--session", help="the session's name (the first file's)")
    record.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help="csv: as in volume=amount; may be repeated"
    )  # fmt: skip
    record.add_argument("--symbol", help="the symbol, where the files don't say")
    _add_server(record)
    record.set_defaults(command=_record)

    replay = commands.add_parser("replay", help="replay a session and say what it held, and its digest")
    replay.add_argument("session", nargs="?", help="the session's name (the one recorded last)")
    replay.add_argument("--start", help="a time such as 23:54:30 or 2024-08-08T23:54:30Z, or an event id")
    replay.add_argument("--end", help="the same; not included")
    replay.add_argument("--type", action="append", dest="types", help="market, order, fill or signal; may be repeated")
    replay.add_argument("--symbol", action="append", dest="symbols", help="only this symbol; may be repeated")
    replay.add_argument("--prefetch", type=int, default=4, help="reads that are under way at once (4)")
    _add_server(replay)
    replay.set_defaults(command=_replay)

    warm = commands.add_parser("compile", help="compile the numba kernels into their cache, so that nobody waits later")
    warm.set_defaults(command=_compile)

    notebooks = commands.add_parser("lab", help="open JupyterLab on the notebooks; further options are JupyterLab's")
    notebooks.add_argument("--directory", default="hftlab-notebooks", help="where they are copied (hftlab-notebooks)")
    notebooks.set_defaults(command=_lab)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a Redis or Valkey server of yours (HFTLAB_URL; else an embedded one)")
    parser.add_argument("--directory", default=".hftlab", help="the embedded server's data (.hftlab)")
    parser.add_argument("--frame-rows", type=int, default=1_024, help="rows in one entry of a stream (1024)")


def _in_lab(parsed: argparse.Namespace, work: Callable[[Lab], Awaitable[int | None]]) -> int:
    async def body() -> int:
        async with hftlab.Lab(parsed.url, parsed.directory, frame_rows=parsed.frame_rows) as lab:
            return await work(lab) or 0

    return hftlab.run(body())


# -- record -----------------------------------------------------------------------------------------------------------


def _record(parsed: argparse.Namespace) -> int:
    options: dict[str, Any] = {}
    if parsed.column:
        pairs = [text.partition("=") for text in parsed.column]
        wrong = next((text for text, equals, _ in pairs if not equals), None)
        if wrong is not None:
            raise ValidationError(f"--column is OURS=THEIRS, such as volume=amount; got {wrong!r}")
        options["columns"] = {ours: theirs for ours, _, theirs in pairs}
    if parsed.symbol:
        options["symbol"] = parsed.symbol
    session = parsed.session or Path(parsed.files[0]).name.split(".")[0]

    async def work(lab: Lab) -> None:
        summary = hftlab.monitor.SessionSummary()
        rows = stored = known = 0
        # Pieces are known by where they stand in which files, not by what they hold: a capture may repeat itself.
        capture = _fingerprint(parsed.files, parsed.format, options)
        begin = time.perf_counter()
        report = None
        for number, batch in enumerate(hftlab.feeds.stream(parsed.files, parsed.format, **options)):
            result = await lab.streams.append(batch, session=session, key=f"{capture}:{number}")
            summary.observe(batch)
            rows += len(batch)
            known += len(batch) if result.duplicate else 0
            stored += result.stored_bytes
            report = batch.report
        elapsed = time.perf_counter() - begin
        print(f"recorded session {session}: {rows - known:,} events written, {known:,} were there already")
        _print_summary(summary)
        print(f"  {report}")
        if stored:
            print(f"  {stored / rows:.1f} bytes an event, {rows / elapsed:,.0f} events/s read and appended")
        print(f"replay it with: hftlab replay {session}")

    return _in_lab(parsed, work)


def _fingerprint(files: Sequence[str], form: str, options: dict[str, Any]) -> str:
    """What tells this reading of these files from any other: their bytes, the format, and its options."""
    digest = xxhash.xxh3_128(repr((form, sorted(options.items()))).encode())
    for file in files:
        with contextlib.suppress(OSError), open(file, "rb") as opened:  # feeds.stream tells what is wrong with a file
            while piece := opened.read(1 << 20):
                digest.update(piece)
        digest.update(b"\0end of file\0")
    return f"record-{digest.hexdigest()}"


# -- replay -----------------------------------------------------------------------------------------------------------


def _replay(parsed: argparse.Namespace) -> int:
    async def work(lab: Lab) -> None:
        session = parsed.session or await _latest(lab)
        replay = lab.replay(
            session,
            start=_moment(parsed.start),
            end=_moment(parsed.end),
            types=parsed.types,
            symbols=parsed.symbols,
            prefetch=parsed.prefetch,
        )
        summary = await _summarize(lab, replay)
        print(f"replayed session {session}")
        _print_summary(summary)
        _print_run(replay)

    return _in_lab(parsed, work)


async def _latest(lab: Lab) -> str:
    recorded = [info for info in await lab.streams.sessions() if info.events]
    if not recorded:
        raise UnknownSession(
            "nothing is recorded here yet: hftlab record FILE --format binance, or name another --directory or --url"
        )
    latest: str = max(recorded, key=lambda info: info.number).name
    return latest


def _moment(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


async def _summarize(lab: Lab, replay: Replay) -> SessionSummary:
    summary = hftlab.monitor.SessionSummary()
    subscription = lab.bus.subscribe(summary.observe, mode="batch", name="summary", batch_rows=8_192)
    try:
        await replay.run()
    finally:
        lab.bus.cancel(subscription)
    return summary


def _print_summary(summary: SessionSummary) -> None:
    for line in summary.lines():
        print(f"  {line}")


def _print_run(replay: Replay) -> None:
    counts = replay.statistics()
    rate = counts.delivered / counts.elapsed_s if counts.elapsed_s else math.nan
    print(
        f"  {counts.delivered:,} events in {counts.elapsed_s:.2f} s, {rate:,.0f} events/s; {counts.emitted:,} emitted"
    )
    print(f"  digest {replay.digest}")


# -- demo -------------------------------------------------------------------------------------------------------------


def _demo(parsed: argparse.Namespace) -> int:
    if not 0 < parsed.seconds <= 86_400:
        raise ValidationError(f"--seconds is above 0 and up to a day; got {parsed.seconds}")
    with tempfile.TemporaryDirectory(prefix="hftlab-demo-") as folder:
        return hftlab.run(_demo_in(folder, parsed))


async def _demo_in(folder: str, parsed: argparse.Namespace) -> int:
    async with hftlab.Lab(directory=folder) as lab:
        print(f"1  simulate: two symbols, {parsed.seconds:g} s, seed {parsed.seed}")
        batch = hftlab.sim.market(["BTCUSDT", "ETHUSDT"], seconds=parsed.seconds, seed=parsed.seed)
        print(f"   {batch!r}")
        print("2  record it into Redis Streams, on a server that lives and dies with this command")
        begin = time.perf_counter()
        result = await lab.streams.append(batch, session="demo")
        rate = len(batch) / (time.perf_counter() - begin)
        print(f"   {len(batch):,} events, {result.stored_bytes / len(batch):.1f} bytes each, {rate:,.0f} events/s")
        again = await lab.streams.append(batch, session="demo")
        print(f"   appended again, by mistake: {'nothing' if again.duplicate else 'EVERYTHING'} was written twice")

        wide = {"BTCUSDT": 0, "ETHUSDT": 0}

        @lab.bus.on("market.*")
        def spread(symbol: str, bid: float, ask: float) -> hftlab.SignalEvent | None:
            if not ask - bid > 4e-4 * bid:
                return None
            wide[symbol] += 1
            return hftlab.SignalEvent(symbol=symbol, signal_type="WIDE", strength=ask - bid, strategy_id="demo")

        print("3  replay it twice through a handler that signals wide spreads")
        digests = []
        for _ in range(2):
            replay = lab.replay("demo")
            summary = await _summarize(lab, replay)
            digests.append(replay.digest)
            _print_run(replay)
        same = len(set(digests)) == 1
        print(f"   {'the same digest both times' if same else 'DIGESTS DIFFER'}; signals: {wide}")
        print("4  what the session held")
        _print_summary(summary)
        if parsed.html:
            _write(parsed.html, _report(summary, replay))
            print(f"wrote {parsed.html}")
        return 0 if same and again.duplicate else 1


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def _report(summary: SessionSummary, replay: Replay) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in summary.lines())
    figure = summary.figure().to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>hftlab: a replayed session</title>"
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}"
        "th{text-align:left;padding-right:1.5rem;font-weight:600}h1{font-size:1.4rem}</style></head><body>"
        f"<h1>A replayed session</h1><ul>{lines}</ul>{replay._repr_html_()}{figure}</body></html>"
    )


# -- compile, lab -----------------------------------------------------------------------------------------------------


def _compile(parsed: argparse.Namespace) -> int:
    from hftlab.ring import kernels

    begin = time.perf_counter()
    kernels.warm()
    print(f"compiled the kernels into numba's cache in {time.perf_counter() - begin:.1f} s")
    return 0


def _lab(parsed: argparse.Namespace) -> int:
    source = notebooks_folder()
    target = Path(parsed.directory)
    target.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(source.glob("*.ipynb")):
        # A notebook that is there already may hold the user's own work.
        if not (target / notebook.name).exists():
            shutil.copy(notebook, target)
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={target.resolve()}", *parsed.further]
    print(f"notebooks in {target}; starting JupyterLab (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execv(sys.executable, command)


def notebooks_folder() -> Path:
    """Where the example notebooks lie: beside the package in a checkout, inside of it in a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise HftlabError(f"the example notebooks are not where they should be (looked in {package}); reinstall hftlab")


if __name__ == "__main__":
    sys.exit(main())
