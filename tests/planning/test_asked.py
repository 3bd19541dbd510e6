"""What a plan is asked for: prompts counted in the data, or said."""

from pathlib import Path

import pytest

from limbeck.errors import ConfigError
from limbeck.planning.asked import Given, count_asked
from limbeck.run_file import RunFile

DATA = {
    "prompts.jsonl": b'{"prompt": "12345678"}\n{"prompt": "1234"}\nnot JSON\n{"prompt": "1234"}\n',
    "prompts.csv": b"prompt\n12345678\n1234\n1234\n",
    "prompts.json": b'[{"prompt": "12345678"}, {"prompt": "1234"}, {"prompt": ""}, {"prompt": "1234"}]',
}


@pytest.mark.parametrize("name", DATA)
def test_prompts_are_counted_in_the_data(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DATA[name])
    run_file = RunFile(prompts=str(tmp_path / name), heldout=str(tmp_path / name))
    asked = count_asked(run_file, Given(), trains=True)
    assert (asked.prompts, asked.heldout) == (3, 3)
    assert asked.prompt_tokens == pytest.approx(16 / 3 / 4 + 30)


def test_a_part_is_held_out_where_no_data_are_named_for_it() -> None:
    asked = count_asked(RunFile(), Given(prompts=1000), trains=True)
    assert (asked.prompts, asked.heldout) == (900, 100)


@pytest.mark.parametrize("address", ["hf://a/b", "", "no/such/file.jsonl"])
def test_what_cannot_be_counted_must_be_said(address: str) -> None:
    with pytest.raises(
        ConfigError, match="--prompts N" if address != "no/such/file.jsonl" else "no such data"
    ):
        count_asked(RunFile(prompts=address), Given(), trains=True)


def test_completions_are_a_share_of_their_bound_unless_their_length_is_said() -> None:
    said = count_asked(RunFile(), Given(prompts=10, completion_tokens=150), trains=True)
    assert (said.completion_tokens(400), said.completion_tokens(100)) == (150, 100)
    assumed = count_asked(RunFile(), Given(prompts=10, completion_share=0.25), trains=True)
    assert assumed.completion_tokens(400) == 100
