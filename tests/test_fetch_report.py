"""`limbeck report`: the newest finished report is fetched whole, and what is none is named."""

from pathlib import Path

import pytest

from limbeck import seaweed
from limbeck.records import Judgement, Prompt
from limbeck.rows import write_rows
from limbeck.storage import Store
from tests.made_outputs import PAGE, invoke, later, made, made_report, rows


def test_report_fetches_the_newest_and_says_what_was_decided(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    old = PAGE | {"report.md": "old"}
    made_report(store, f"{work_uri}/report/aa", tmp_path / "old", old, metrics={"report/promote": 0.0})
    later(store, f"{work_uri}/inputs")
    newest = made_report(store, f"{work_uri}/report/bb", tmp_path / "new", metrics={"report/promote": 1.0})
    out = tmp_path / "out"
    result = invoke("report", work_uri, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "limbeck: Promote. It won."
    assert lines[1].endswith(f"UTC: {out}/report.html")
    assert {path.name: path.read_text() for path in out.iterdir()} == PAGE

    listed = invoke("report", work_uri, "--list").output.splitlines()
    assert [line.split("/")[-1] for line in listed] == ["bb", "aa"]
    assert ["do not promote" in line for line in listed] == [False, True]

    store.write_bytes(newest.objects[0].uri, b"<p>evil</p>")
    corrupt = invoke("report", work_uri, "--out", out)
    assert corrupt.exit_code == 4
    assert "corrupt object" in corrupt.stderr
    assert (out / "report.html").read_text() == PAGE["report.html"]


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({"report.json": "{}"}, "a report without all of its files"),
        (PAGE | {"report.json": '{"decision": 1}'}, "a report.json without a decision"),
    ],
)
def test_what_is_no_report_is_refused(
    store: Store, work_uri: str, tmp_path: Path, pages: dict[str, str], message: str
) -> None:
    made_report(store, f"{work_uri}/report/aa", tmp_path / "pages", pages)
    result = invoke("report", work_uri, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert message in result.stderr


def test_without_a_finished_report_the_error_says_what_is_there(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    made(store, f"{work_uri}/generate/aa")
    write_rows(store, f"{work_uri}/generate/bb", rows(1))
    manifest = made_report(store, f"{work_uri}/report/aa", tmp_path / "pages")
    store.write_bytes(manifest.objects[0].uri, b"")
    result = invoke("report", work_uri, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "generate (1 complete, 1 in progress), report (1 broken)" in result.stderr.replace(
        "1 in progress, 1 complete", "1 complete, 1 in progress"
    )
    assert not (tmp_path / "out").exists()


def test_reports_that_are_not_finished_are_listed_too(store: Store, work_uri: str, tmp_path: Path) -> None:
    manifest = made_report(store, f"{work_uri}/report/aa", tmp_path / "pages")
    store.write_bytes(manifest.objects[0].uri, b"")
    write_rows(store, f"{work_uri}/report/bb", rows(1))
    result = invoke("report", work_uri, "--list")
    assert result.exit_code == 0, result.output
    reports = [line.split() for line in result.output.splitlines() if "report/" in line]
    assert sorted((line[-1].split("/")[-1], line[3]) for line in reports) == [("aa", "broken"), ("bb", "in")]

    nothing = invoke("report", f"{work_uri}/nowhere", "--list")
    assert nothing.exit_code == 3
    assert "no finished report" in nothing.stderr


def test_a_folder_that_the_report_cannot_be_written_to_is_one_line(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    made_report(store, f"{work_uri}/report/aa", tmp_path / "pages")
    (tmp_path / "out" / "report.md").mkdir(parents=True)
    result = invoke("report", work_uri, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"limbeck: error 2: cannot write the report in --out {tmp_path}/out: got")
    assert result.stderr.count("\n") == 1


def test_the_store_that_a_run_left_can_be_opened(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "store"
    with seaweed.serve(folder) as own:
        own.make_bucket("s3://limbeck")
        made_report(own, "s3://limbeck/work/report/aa", tmp_path / "pages")
        write_rows(own, "s3://limbeck/work/prepare/aa/prompts", [Prompt(prompt_id="1", prompt="x")])
        write_rows(
            own, "s3://limbeck/work/judge/aa", [Judgement(completion_id="1", prompt_id="1", p_correct=1)]
        )
    result = invoke("status", "s3://limbeck/work", "--store", folder)
    assert result.exit_code == 0, result.output
    assert "2 in progress, 1 complete" in result.output.splitlines()[0]
    fetched = invoke("report", "s3://limbeck/work", "--store", folder, "--out", tmp_path / "fetched")
    assert fetched.exit_code == 0, fetched.output
    assert (tmp_path / "fetched" / "report.md").read_text() == "page"
    assert not (folder / "weed.pid").exists()
