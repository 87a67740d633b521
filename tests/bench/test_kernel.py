"""The kernel's benchmark runs, on a few requests: whether it is fast is not asked here, but whether it goes on."""

import pytest

from tests.bench import kernel


def test_a_busy_kernel_executes_completes_and_is_interrupted_and_its_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "REQUESTS", 2)
    monkeypatch.setattr(kernel, "INTERRUPTS", 2)
    monkeypatch.setattr(kernel, "WARM_UPS", 1)
    found = kernel.measure(runs=1)  # which asserts that no interrupt ended the engine
    ours = {one.work for one in found if one.contender == "hftlab"}
    assert {goal.work for goal in kernel.GOALS} <= ours
    assert all(one.skipped or one.median > 0 for one in found)
    handled = [one for one in found if one.work.startswith("events handled")]
    assert len(handled) == 5
