"""The whole examination: with a lab, without, where nothing can be read, and where a check breaks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import hftlab
from hftlab.doctor import Answer, Report, Verdict, examine, stamping
from hftlab.errors import ValidationError
from tests.clock.ntp.simulated import Behaviour, Truth, simulated
from tests.streams.servers import binary_of

AREAS = ["clock", "ntp", "stamps", "memory", "server", "python"]
NOBODY = "redis://bob:s3cr3t-password@127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HFTLAB_NTP", raising=False)
    monkeypatch.delenv("HFTLAB_URL", raising=False)


def areas(report: Report) -> list[str]:
    return list(dict.fromkeys(check.area for check in report.checks))


async def test_every_area_is_looked_at_where_nothing_can_be_read(tmp_path: Path) -> None:
    report = await examine(url=NOBODY, seconds=0.2, root=tmp_path, directory=tmp_path)
    assert areas(report) == AREAS
    assert not report.failed
    by_name = {(check.area, check.name): check.verdict for check in report.checks}
    assert by_name["clock", "clocksource"] is Verdict.UNKNOWN
    assert by_name["memory", "huge pages"] is Verdict.UNKNOWN
    assert by_name["stamps", "cores"] in (Verdict.UNKNOWN, Verdict.POOR)


async def test_a_password_is_in_nothing_that_is_shown(tmp_path: Path) -> None:
    report = await examine(url=NOBODY, seconds=0.2, root=tmp_path)
    for shown in (report.text(), report.to_json(), repr(report), report._repr_html_(), report.to_frame().to_csv()):
        assert "s3cr3t-password" not in shown
        assert "bob" not in shown


async def test_a_url_that_makes_no_sense_is_refused_without_its_password() -> None:
    with pytest.raises(ValidationError) as caught:
        await examine(url="gopher://bob:s3cr3t-password@host")
    assert "s3cr3t-password" not in str(caught.value)


@pytest.mark.usefixtures("elsewhere")
async def test_servers_that_agree_answer_for_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated(Truth(3_000_000_000), [Behaviour()] * 3, random.Random(1)) as servers:
        monkeypatch.setenv("HFTLAB_NTP", " , ".join(server.name for server in servers))
        report = await examine(url=NOBODY, seconds=1.0, root=tmp_path)
    assert {one.answer for one in report.fitness} == {Answer.NO}
    assert "-3 s ±" in report.fitness[0].because


async def test_a_check_that_breaks_is_told_and_takes_nothing_else_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(root: Path, seconds: float) -> None:
        raise RuntimeError("s3cr3t-password")

    monkeypatch.setattr(stamping, "examine_stamps", broken)
    report = await examine(url=NOBODY, seconds=0.2, root=tmp_path)
    (failed,) = report.failed
    assert failed.area == "stamps"
    assert "RuntimeError (test_examining.py:" in failed.why
    assert "s3cr3t-password" not in report.to_json()
    assert areas(report) == AREAS


@pytest.mark.parametrize("seconds", [0, -1, 61, float("nan"), True, "2"])
async def test_an_impossible_patience_is_refused(seconds: float) -> None:
    with pytest.raises(ValidationError, match="seconds is above 0 and up to 60"):
        await examine(seconds=seconds)


@pytest.mark.parametrize("ntp", [[1], 5, "no server/at all", ["host:0"]])
async def test_what_is_no_ntp_server_is_refused(ntp: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        await examine(url=NOBODY, ntp=ntp, seconds=0.2, root=tmp_path)


@pytest.mark.usefixtures("elsewhere")
async def test_a_labs_own_server_folder_and_clock_are_looked_at(tmp_path: Path) -> None:
    binary_of("embedded")
    async with (
        simulated(Truth(0), [Behaviour()] * 3, random.Random(2)) as servers,
        hftlab.Lab(directory=tmp_path / "data", ntp=[server.name for server in servers]) as lab,
    ):
        assert lab.ntp is not None
        await lab.ntp.poll_once()
        report = await examine(lab, seconds=5.0)
        assert lab.loop is not None, "it goes on"
    checks = {(check.area, check.name): check for check in report.checks}
    assert str(tmp_path / "data") in checks["server", "round trip"].value
    assert str(tmp_path / "data") in checks["memory", "disk"].value
    assert checks["ntp", "lab's clock"].verdict is Verdict.GOOD
    assert report.fitness[2].answer is Answer.YES
    assert not report.failed
