"""Where student and teacher came from, and what their own files say of licences."""

from collections.abc import Callable

import pytest

from limbeck.errors import ConfigError, DataError
from limbeck.export import Asked, choose
from limbeck.export.origins import MAX_BYTES, NOT_STATED, licence_of, student, teacher
from tests.export.conftest import MadeRun


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\r\nlicense: apache-2.0\r\n---\r\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: gemma-terms\n---\n", "other gemma-terms"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: [x]\n---\n", ""),
        ("# license: mit\n", ""),  # no header
        ("---\nlicense: mit\n", ""),  # a header without an end
        ("---\nlicense: [mit, gpl]\n---\n", ""),
        ("---\nlicense: 'mit\\n<script>'\n---\n", ""),
        ("---\nlicense: '![x](http://evil.test)'\n---\n", ""),
        ("---\n- a list\n---\n", ""),
        ("---\n{: broken\n---\n", ""),
        ("---\nlicense: 2026-11-26\n---\n", ""),
        ("", ""),
    ],
)
def test_a_licence_is_what_the_header_names_and_never_guessed(readme: str, licence: str) -> None:
    assert licence_of(readme.replace("\r\n", "\n")) == licence


def folder_of(run: MadeRun, role: str) -> str:
    return next(iter(run.store.sizes(f"{run.work_uri}/models/{role}"))).rpartition("/")[0]


def test_both_are_known_by_their_files(run: MadeRun) -> None:
    chosen = choose(run.store, run.report)
    address = folder_of(run, "student")
    for said in (address, f"{address}/"):
        found = student(run.store, chosen, said)
        assert (found.licence, found.licence_file) == ("apache-2.0", "LICENSE")
        assert found.licence_text == b"Apache License\n"
    assert teacher(run.store, chosen, folder_of(run, "teacher")).licence == "apache-2.0"


def test_the_teacher_is_known_in_any_number_type_and_with_or_without_thinking(
    make_run: Callable[..., MadeRun],
) -> None:
    run = make_run(dtype="bfloat16", thinking=True)
    assert teacher(run.store, choose(run.store, run.report), folder_of(run, "teacher")).licence


def test_a_licence_that_is_no_small_text_is_refused(make_run: Callable[..., MadeRun]) -> None:
    run = make_run(licence="x" * (MAX_BYTES + 1))
    with pytest.raises(DataError, match="a text file that is too large to be one"):
        student(run.store, choose(run.store, run.report), folder_of(run, "student"))


def test_nobody_need_say_them(run: MadeRun) -> None:
    chosen = choose(run.store, run.report)
    assert student(run.store, chosen, "") == teacher(run.store, chosen, "") == NOT_STATED


def test_another_model_than_the_runs_is_refused(run: MadeRun) -> None:
    chosen, address = choose(run.store, run.report), folder_of(run, "student")
    with pytest.raises(DataError, match=r"not the teacher of this run .*got another folder"):
        teacher(run.store, chosen, address)
    with pytest.raises(DataError, match=r"not the student of this run .*got no objects"):
        student(run.store, chosen, f"{run.work_uri}/nothing")
    run.store.write_bytes(f"{address}/README.md", b"---\nlicense: mit\n---\nanother one")
    with pytest.raises(DataError, match="not the student of this run"):
        student(run.store, chosen, address)


def test_the_student_of_a_warmed_up_student_is_known_too(run: MadeRun) -> None:
    chosen = choose(run.store, run.report, "sft_selected")
    assert student(run.store, chosen, folder_of(run, "student")).licence == "apache-2.0"


@pytest.mark.parametrize("name", ["a/b/c", "../x", "x y", "<b>", "a/", "-x"])
def test_names_of_a_hub_are_names(name: str) -> None:
    Asked(base_model="Qwen/Qwen2.5-0.5B-Instruct", datasets=("openai/gsm8k",)).check()
    with pytest.raises(ConfigError, match="not the name of a model or data set"):
        Asked(base_model=name).check()
    with pytest.raises(ConfigError, match="not the name of a model or data set"):
        Asked(datasets=("openai/gsm8k", name)).check()
