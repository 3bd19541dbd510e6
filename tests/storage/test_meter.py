"""The lines about a transfer that takes long."""

import pytest

from limbeck.storage.meter import MEGABYTE, Meter


def test_a_transfer_of_many_small_files_is_done_once(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("upload", 2 * MEGABYTE, quiet_seconds=0)
    for _ in range(40):
        meter.add(MEGABYTE // 20)
    meter.add(0)  # an empty file comes last
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith("done")] == lines[-1:]
    assert lines[-1].startswith("limbeck: upload: 2/2 MB")


def test_a_short_transfer_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("upload", 2 * MEGABYTE)
    meter.add(2 * MEGABYTE)
    assert not capsys.readouterr().out
