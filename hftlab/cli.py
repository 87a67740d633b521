"""The command line: ``hftlab lab · demo · record · replay · gaps · groups · letters · doctor · compile``."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hftlab
from hftlab.arguments import make_parser
from hftlab.errors import HftlabError, UnknownSession, ValidationError
from hftlab.group_commands import groups_text, letters_text

if TYPE_CHECKING:
    from hftlab.lab import Lab
    from hftlab.monitor import SessionSummary
    from hftlab.replay import Replay
    from hftlab.sequence.survey import Survey


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error told in a line, 130 if interrupted, 141 if unread."""
    parser = make_parser()
    parsed, further = parser.parse_known_args(arguments)
    if further and parsed.name != "lab":
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    parsed.further = further
    try:
        return _COMMANDS[parsed.name](parsed)
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


def _format_options(parsed: argparse.Namespace) -> dict[str, Any]:
    options = hftlab.feeds.options_from(parsed.format, parsed.option)
    if parsed.column:
        options["columns"] = hftlab.feeds.mapping_from(parsed.column, "--column", "volume=amount")
    if parsed.symbol:
        options["symbol"] = parsed.symbol
    if parsed.times:
        options["times"] = parsed.times
    return options


def _in_lab(parsed: argparse.Namespace, work: Callable[[Lab], Awaitable[int | None]]) -> int:
    async def body() -> int:
        async with hftlab.Lab(parsed.url, parsed.directory, frame_rows=parsed.frame_rows) as lab:
            return await work(lab) or 0

    return hftlab.run(body())


# -- record -----------------------------------------------------------------------------------------------------------


def _record(parsed: argparse.Namespace) -> int:
    options = _format_options(parsed)
    session = parsed.session or Path(parsed.files[0]).name.split(".")[0]

    async def work(lab: Lab) -> None:
        summary = hftlab.monitor.SessionSummary()
        rows = stored = known = 0
        # Pieces are known by where they stand in which files, not by what they hold: a capture may repeat itself.
        capture = hftlab.feeds.fingerprint(parsed.files, parsed.format, options)
        begin = time.perf_counter()
        report = None
        for number, batch in enumerate(hftlab.feeds.stream(parsed.files, parsed.format, **options)):
            result = await lab.streams.append(batch, session=session, key=f"record-{capture}:{number}")
            summary.observe(batch)
            rows += len(batch)
            known += len(batch) if result.duplicate else 0
            stored += result.stored_bytes
            report = batch.report
        elapsed = time.perf_counter() - begin
        print(f"recorded session {session}: {rows - known:,} events written, {known:,} were there already")
        _print_summary(summary)
        print(f"  {report}")
        if report is not None and report.times.recorder:
            print(f"  {report.times.recorder}")
        if stored:
            print(f"  {stored / rows:.1f} bytes an event, {rows / elapsed:,.0f} events/s read and appended")
        print(f"replay it with: hftlab replay {session}")

    return _in_lab(parsed, work)


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


# -- gaps -------------------------------------------------------------------------------------------------------------


def _gaps(parsed: argparse.Namespace) -> int:
    from hftlab.sequence.listing import survey_lines
    from hftlab.sequence.survey import Survey

    asked = {"deadline_s": parsed.deadline, "window": parsed.window, "reorder_s": parsed.reorder}
    ordering = hftlab.Ordering(**{name: value for name, value in asked.items() if value is not None})
    if parsed.rows < 1:
        raise ValidationError(f"--rows is at least 1; got {parsed.rows}")
    if parsed.csv not in (None, "-") and os.path.lexists(parsed.csv):
        raise ValidationError(f"--csv writes a new file, and {parsed.csv} exists: delete it first, or name another")
    survey = Survey(ordering)
    if parsed.format is None:
        _survey_session(parsed, survey)
    else:
        for batch in hftlab.feeds.stream(parsed.what, parsed.format, **_format_options(parsed)):
            survey.observe(batch)
    survey.finish()
    gaps = survey.gaps
    if parsed.csv == "-":
        gaps.to_frame().to_csv(sys.stdout, index=False)
        return 0
    name = f"session {parsed.what[0]}" if parsed.format is None else ", ".join(Path(file).name for file in parsed.what)
    for line in survey_lines(survey, name, parsed.rows, "--csv has all"):
        print(line)
    if parsed.csv:
        try:
            with open(parsed.csv, "x", encoding="utf-8") as file:
                file.write(gaps.to_frame().to_csv(index=False))
        except OSError as error:
            raise ValidationError(f"--csv {parsed.csv}: {error.strerror}") from error
        print(f"wrote {len(gaps):,} gap{'s' * (len(gaps) != 1)} to {parsed.csv}")
    return 0


def _survey_session(parsed: argparse.Namespace, survey: Survey) -> None:
    from hftlab.events.ports import LogRange

    session, *others = parsed.what
    if others:
        raise ValidationError(f"one session at a time, and captures with their --format; got {', '.join(parsed.what)}")

    async def work(lab: Lab) -> None:
        info = await lab.streams.session(session)
        async for batch in lab.streams.read(info, LogRange(), symbols=survey.symbols, sources=survey.sources):
            survey.observe(batch)

    try:
        _in_lab(parsed, work)
    except UnknownSession as error:
        if Path(session).is_file():
            raise UnknownSession(f"no session is called {session}; to read the file, say its --format") from error
        raise


# -- groups, letters --------------------------------------------------------------------------------------------------


def _groups(parsed: argparse.Namespace) -> int:
    return _tell(parsed, groups_text)


def _letters(parsed: argparse.Namespace) -> int:
    return _tell(parsed, letters_text)


def _tell(parsed: argparse.Namespace, text: Callable[[Lab, argparse.Namespace], Awaitable[str]]) -> int:
    async def work(lab: Lab) -> None:
        print(await text(lab, parsed), end="")

    return _in_lab(parsed, work)


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
        print(f"   {(await lab.streams.durability()).in_words}")

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
            _write(parsed.html, hftlab.monitor.page(summary, "a replayed session", replay._repr_html_()))
            print(f"wrote {parsed.html}")
        return 0 if same and again.duplicate else 1


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


# -- doctor -----------------------------------------------------------------------------------------------------------


def _doctor(parsed: argparse.Namespace) -> int:
    from hftlab.doctor import examine

    report = hftlab.run(examine(None, parsed.ntp, parsed.url, parsed.directory, parsed.seconds))
    print(report.to_json() + "\n" if parsed.json else report.text(shutil.get_terminal_size((100, 24)).columns), end="")
    return 1 if report.failed else 0


# -- compile, lab -----------------------------------------------------------------------------------------------------


def _compile(parsed: argparse.Namespace) -> int:
    from hftlab.compiling import compile_kernels

    begin = time.perf_counter()
    count = compile_kernels()
    print(f"compiled {count} kernels into numba's cache in {time.perf_counter() - begin:.1f} s")
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


_COMMANDS = {
    "demo": _demo, "record": _record, "replay": _replay, "gaps": _gaps, "groups": _groups, "letters": _letters,
    "doctor": _doctor, "compile": _compile, "lab": _lab,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
