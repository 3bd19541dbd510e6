"""A teacher that thinks: what its thinking reaches, and what it does not."""

import pytest

from limbeck.records import Completion, Judgement
from limbeck.rows import read_rows
from limbeck.stages import generate, judge, sft
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor
from tests.stages.test_training import no_base, row
from tests.stages.trainers import Trainer, given

THOUGHT = "<think>hm, = 7</think>\n\n= 3"


@pytest.mark.parametrize(("strip_thinking", "shown"), [(False, THOUGHT), (True, "= 3")])
def test_the_judge_sees_thinking_unless_it_is_stripped_and_the_rows_keep_it(
    store: Store,
    work_uri: str,
    config_for: ConfigFor,
    prepared: Prepared,
    strip_thinking: bool,
    shown: str,
) -> None:
    config = config_for(
        task={"answer_pattern": r"= (\w+)", "strip_thinking": strip_thinking},
        judge={"template": "{prompt}|{completion}"},
        generate={"teacher": {"samples_per_prompt": 1}},
    )
    seen: set[str] = set()

    def teacher(prompt: str, seed: int | None) -> str:
        seen.add(prompt)
        return "yes" if "|" in prompt else THOUGHT

    asked = ScriptedSampler(teacher)
    made = generate.run(prepared.prompts, "t", lambda: asked, config, store, work_uri, role="teacher")
    assert {(item.text, item.answer) for item in read_rows(store, made, Completion)} == {(THOUGHT, "3")}
    judged = judge.run(prepared.prompts, made, "t", lambda: asked, config, store, work_uri)
    assert {item.p_correct for item in read_rows(store, judged, Judgement)} == {0.9}
    assert {prompt.partition("|")[2] for prompt in seen if "|" in prompt} == {shown}


@pytest.mark.parametrize(("strip_thinking", "num_left_out"), [(False, 0), (True, 1)])
def test_a_thought_without_an_answer_is_not_trained_on_where_thinking_is_stripped(
    store: Store, work_uri: str, config_for: ConfigFor, strip_thinking: bool, num_left_out: int
) -> None:
    rows = [row(11), row(13, text="<think>hm, = 7"), row(15, text=THOUGHT)]
    labelled = given(store, f"{work_uri}/labelled", "labelled", [*rows])
    trainer = Trainer({"history": []})
    config = config_for(task={"strip_thinking": strip_thinking})
    made = sft.run(labelled, "hash", no_base, trainer, config, store, work_uri, selection="all")
    assert len(trainer.calls[0]["pairs"]) == made.num_rows == 3 - num_left_out
    assert made.rejected.get("thinking without an answer", 0) == num_left_out
