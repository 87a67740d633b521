"""``hftlab doctor``, called as a person would, on this machine."""

from __future__ import annotations

import json

import pytest

from hftlab import cli
from hftlab.doctor import stamping

URL = "redis://bob:s3cr3t-password@127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HFTLAB_NTP", raising=False)
    monkeypatch.delenv("HFTLAB_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "90")


def test_the_doctor_says_what_the_machine_is_good_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 90
    for word in ("clock\n", "stamps\n", "memory\n", "server\n", "python\n", "RTS 25, 100 us", "CAT"):
        assert word in told
    assert "nothing left this machine" in told


def test_json_is_for_machines_and_a_password_is_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTLAB_URL", URL)
    assert cli.main(["doctor", "--json", "--seconds", "0.2"]) == 0
    shown = capsys.readouterr()
    assert {check["area"] for check in json.loads(shown.out)["checks"]} >= {"clock", "ntp", "server"}
    assert "s3cr3t-password" not in shown.out + shown.err


def test_a_check_that_breaks_makes_the_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(stamping, "examine_stamps", broken)
    assert cli.main(["doctor", "--url", URL, "--seconds", "0.2"]) == 1
    assert "the check itself failed with RuntimeError" in capsys.readouterr().out


def test_arguments_that_make_no_sense_are_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--seconds", "0"]) == 1
    assert capsys.readouterr().err.startswith("hftlab doctor: seconds is above 0")
    assert cli.main(["doctor", "--ntp", "no server/at all", "--url", URL, "--seconds", "0.2"]) == 1
    assert capsys.readouterr().err.startswith("hftlab doctor: a server is")
