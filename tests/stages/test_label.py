"""judge and label: from completions to pseudo labels and pseudo-rewards, without gold."""

from typing import Any

import pytest

from limbeck.config import Config
from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest
from limbeck.records import Completion, GoldAnswer, Judgement, LabelledCompletion, Prompt, PseudoLabel, Row
from limbeck.rows import PartWriter, read_rows, write_rows
from limbeck.stages.generate import run as generate
from limbeck.stages.judge import run as judge
from limbeck.stages.label import run as label
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor

SETTINGS: dict[str, dict[str, Any]] = {
    "judge": {"template": "judge {prompt} : {completion}"},
    "generate": {"teacher": {"samples_per_prompt": 6, "max_tokens": 8}, "student": {"samples_per_prompt": 2}},
}


def teacher(prompt: str, seed: int | None) -> str:
    """Right two times of three; its judge sees through half of its errors."""
    number = int(prompt.split("sum ")[1].split(maxsplit=1)[0])
    if prompt.startswith("judge"):
        return "yes" if prompt.endswith(f"= {number}") or number % 2 else "no"
    return f"= {number if (seed or 0) % 3 else number + 1}"


def complete(prepared: Prepared, config: Config, store: Store, work_uri: str) -> tuple[Manifest, Manifest]:
    made = generate(
        prepared.prompts, "t", lambda: ScriptedSampler(teacher), config, store, work_uri, role="teacher"
    )
    judged = judge(prepared.prompts, made, "t", lambda: ScriptedSampler(teacher), config, store, work_uri)
    return made, judged


def test_judgements_follow_the_judge(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    _, judged = complete(prepared, config_for(**SETTINGS), store, work_uri)
    rows = read_rows(store, judged, Judgement)
    assert len(rows) == prepared.prompts.num_rows * 6
    assert {row.p_correct for row in rows} == {0.1, 0.9}


def biased(prompt: str, seed: int | None) -> str:
    """Says what stands first of the two words, but sees through 999."""
    if not prompt.startswith("judge"):
        return teacher(prompt, seed)
    return "no" if "999" in prompt else prompt.rsplit(":", maxsplit=1)[1].split(maxsplit=1)[0]


def test_votes_ask_in_both_orders_and_their_mean_is_kept_with_both(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    template = "judge {prompt} : {completion} : {first} {second}"
    config = config_for(**{**SETTINGS, "judge": {"template": template, "votes": 2}})
    made, _ = complete(prepared, config, store, f"{work_uri}/other")
    sampler = ScriptedSampler(biased)
    judged = judge(prepared.prompts, made, "t", lambda: sampler, config, store, work_uri)
    rows = read_rows(store, judged, Judgement)
    assert len(sampler.answered) == 2 * len(rows) == 2 * made.num_rows
    assert {(row.p_correct, row.p_yes_first, row.p_no_first) for row in rows} == {(0.5, 0.9, 0.1)}
    assert [row.completion_id for row in rows] == [
        row.completion_id for row in read_rows(store, made, Completion)
    ]
    one = config_for(**{**SETTINGS, "judge": {"template": template}})
    judged = judge(prepared.prompts, made, "t", lambda: ScriptedSampler(biased), one, store, work_uri)
    rows = read_rows(store, judged, Judgement)
    assert {(row.p_correct, row.p_yes_first, row.p_no_first) for row in rows} == {(0.9, 0.9, None)}


def test_after_a_kill_in_the_midst_of_a_completions_votes_the_judgements_are_the_same(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    template = "judge {prompt} : {completion} : {first} {second}"
    config = config_for(
        judge={"template": template, "votes": 4, "temperature": 1.0},
        generate={**SETTINGS["generate"], "rows_per_part": 10, "commit_seconds": 1e-9},
    )
    made, whole = complete(prepared, config, store, work_uri)

    def judged_by(sampler: ScriptedSampler) -> Manifest:
        return judge(prepared.prompts, made, "t", lambda: sampler, config, store, f"{work_uri}/killed")

    for _ in range(2):  # after 101 verdicts some completions have one to three of their four
        with pytest.raises(KeyboardInterrupt):
            judged_by(ScriptedSampler(teacher, die_after=101, at_once=3))
    last = ScriptedSampler(teacher, at_once=3)
    again = judged_by(last)
    assert again.content_hash == whole.content_hash
    lost = len(last.answered) + 2 * 101 - 4 * made.num_rows
    assert 0 < lost <= 2 * 3 * 4  # of those that were not whole


def test_a_completion_of_which_one_verdict_kills_the_engine_counts_as_wrong(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    template = "judge {prompt} : {completion} : {first} {second}"
    config = config_for(**{**SETTINGS, "judge": {"template": template, "votes": 2}})
    made, _ = complete(prepared, config, store, f"{work_uri}/healthy")
    of = {row.prompt_id: row.prompt for row in read_rows(store, prepared.prompts, Prompt)}
    victim = read_rows(store, made, Completion)[40]
    message = f"judge {of[victim.prompt_id]} : {victim.text} : no yes"
    sampler = ScriptedSampler(teacher, deadly=lambda prompt, seed: prompt == message)
    judged = judge(prepared.prompts, made, "t", lambda: sampler, config, store, work_uri)
    rows = {row.completion_id: row for row in read_rows(store, judged, Judgement)}
    assert len(rows) == made.num_rows
    aside = [row for row in rows.values() if row.p_yes_first is None]
    assert victim.completion_id in {row.completion_id for row in aside}
    assert {row.p_correct for row in aside} == {0.0}
    assert judged.rejected == {"kills the engine": len(aside)}


def test_a_completion_too_long_to_judge_counts_as_wrong(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS)
    made, _ = complete(prepared, config, store, work_uri)
    short = config.model_copy(update={"engine": config.engine.model_copy(update={"max_model_len": 19})})
    judged = judge(prepared.prompts, made, "t", lambda: ScriptedSampler(teacher), short, store, work_uri)
    rows = read_rows(store, judged, Judgement)
    assert sum(row.p_correct == 0.0 for row in rows) == judged.rejected["judge prompt too long"] > 0
    assert len(rows) == made.num_rows


def test_after_a_kill_only_missing_judgements_are_asked_and_one_that_kills_the_engine_counts_as_wrong(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(
        **{**SETTINGS, "generate": {**SETTINGS["generate"], "rows_per_part": 30, "commit_seconds": 1e-9}}
    )
    made, _ = complete(prepared, config, store, f"{work_uri}/healthy")
    of = {row.prompt_id: row.prompt for row in read_rows(store, prepared.prompts, Prompt)}
    victim = read_rows(store, made, Completion)[70]
    message = f"judge {of[victim.prompt_id]} : {victim.text}"

    def judged_by(sampler: ScriptedSampler, prefix: str) -> Manifest:
        return judge(prepared.prompts, made, "t", lambda: sampler, config, store, f"{work_uri}/{prefix}")

    def deadly(prompt: str, seed: int | None) -> bool:
        return prompt == message

    whole = judged_by(ScriptedSampler(teacher, deadly=deadly), "unbroken")
    rows = read_rows(store, whole, Judgement)
    wrong = [row.completion_id for row in rows if row.p_correct == 0.0]
    assert victim.completion_id in wrong
    assert whole.rejected == {"kills the engine": len(wrong)}
    assert [row.completion_id for row in rows] == [
        row.completion_id for row in read_rows(store, made, Completion)
    ]
    with pytest.raises(KeyboardInterrupt):
        judged_by(ScriptedSampler(teacher, deadly=deadly, die_after=100), "killed")
    second = ScriptedSampler(teacher, deadly=deadly)
    again = judged_by(second, "killed")
    assert len(second.answered) == len(rows) - len(wrong) - 100
    assert again.content_hash == whole.content_hash
    assert again.rejected == whole.rejected


def test_labels_and_pseudo_rewards(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS)
    made, judged = complete(prepared, config, store, work_uri)
    out = label(prepared.prompts, [made], [judged], None, config, store, work_uri)
    labels = {row.prompt_id: row.answer for row in read_rows(store, out.labels, PseudoLabel)}
    assert len(labels) == prepared.prompts.num_rows
    rows = read_rows(store, out.labelled, LabelledCompletion)
    assert rows
    for row in rows:
        assert row.pseudo_reward == float(row.text == f"= {labels[row.prompt_id]}")
        assert not row.selected or row.pseudo_reward == 1
    even = [row for row in rows if int(row.prompt.split()[1]) % 2 == 0]
    assert all(labels[row.prompt_id] == row.prompt.split()[1] for row in even)


def test_student_completions_are_labelled_by_the_given_labels(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS)
    made, judged = complete(prepared, config, store, work_uri)
    first = label(prepared.prompts, [made], [judged], None, config, store, work_uri)
    wrong = generate(
        prepared.prompts,
        "s",
        lambda: ScriptedSampler(lambda *_: "= 999"),
        config,
        store,
        work_uri,
        role="student",
    )
    second = label(prepared.prompts, [wrong], [], first.labels, config, store, work_uri)
    assert second.labels == first.labels
    rows = read_rows(store, second.labelled, LabelledCompletion)
    assert {(row.source, row.pseudo_reward, row.selected) for row in rows} == {("student", 0.0, False)}


def shards(store: Store, uri: str, whole: Manifest, row_type: type[Row], count: int) -> list[Manifest]:
    """The rows of a manifest dealt out like cards, and an empty shard at the end."""
    rows = read_rows(store, whole, row_type)
    dealt = []
    for number in range(count + 1):
        with PartWriter(store, f"{uri}/{number}", row_type, rows_per_part=7) as out:
            for row in rows[number::count] if number < count else []:
                out.add(row)
        dealt.append(whole.model_copy(update={"uri": f"{uri}/{number}", "objects": tuple(out.objects)}))
    return dealt


def test_prompts_whose_completions_lie_in_several_shards_get_the_same_labels(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS)
    made, judged = complete(prepared, config, store, work_uri)
    whole = label(prepared.prompts, [made], [judged], None, config, store, work_uri)
    completions = shards(store, f"{work_uri}/completions", made, Completion, 3)
    judgements = shards(store, f"{work_uri}/judgements", judged, Judgement, 2)
    dealt = label(prepared.prompts, completions, judgements, None, config, store, work_uri)
    assert read_rows(store, dealt.labels, PseudoLabel) == read_rows(store, whole.labels, PseudoLabel)
    rows = read_rows(store, dealt.labelled, LabelledCompletion)
    expected = read_rows(store, whole.labelled, LabelledCompletion)
    assert rows != expected  # their order is that of the shards
    assert sorted(rows, key=lambda row: row.completion_id) == sorted(
        expected, key=lambda row: row.completion_id
    )
    assert (dealt.labelled.metrics, dealt.labels.name) == (whole.labelled.metrics, "labels_teacher")


def test_a_completion_of_an_unknown_prompt_is_refused(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS)
    made, judged = complete(prepared, config, store, work_uri)
    rows = read_rows(store, prepared.prompts, Prompt)
    fewer = write_rows(store, f"{work_uri}/fewer", rows[1:])
    prompts = prepared.prompts.model_copy(update={"uri": f"{work_uri}/fewer", "objects": (fewer,)})
    with pytest.raises(DataError, match=rf"a completion of an unknown prompt .*got '{rows[0].prompt_id}'"):
        label(prompts, [made], [judged], None, config, store, work_uri)


def test_missing_judgements_are_refused(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS)
    made, _ = complete(prepared, config, store, work_uri)
    with pytest.raises(DataError, match=r"completions without a judgement.*label.rule to majority"):
        label(prepared.prompts, [made], [], None, config, store, work_uri)


def test_no_label_at_all_stops_the_stage(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS, label={"min_p_correct": 0.95})
    made, judged = complete(prepared, config, store, work_uri)
    with pytest.raises(DataError, match=r"no prompt got a pseudo label.*with no votes"):
        label(prepared.prompts, [made], [judged], None, config, store, work_uri)


def test_gold_answers_are_labels_for_their_rule_alone(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for(**SETTINGS, label={"rule": "gold"})
    made, _ = complete(prepared, config, store, work_uri)
    out = label(prepared.prompts, [made], [], None, config, store, work_uri, gold=prepared.gold)
    gold = {row.prompt_id: row.answer for row in read_rows(store, prepared.gold, GoldAnswer)}
    labels = read_rows(store, out.labels, PseudoLabel)
    assert {row.prompt_id: row.answer for row in labels} == {
        row.prompt_id: gold[row.prompt_id] for row in labels
    }
    assert {row.reason for row in labels} == {"gold answer"}
    rows = read_rows(store, out.labelled, LabelledCompletion)
    assert all(row.selected == (row.text == f"= {gold[row.prompt_id]}") for row in rows)
    student = label(prepared.prompts, [made], [], out.labels, config, store, f"{work_uri}/student")
    assert student.labels == out.labels


@pytest.mark.parametrize(
    ("rule", "with_gold", "given", "says"),
    [
        (
            "judged_majority",
            True,
            False,
            r"gold answers must not reach training.*label\.rule is judged_majority",
        ),
        ("majority", True, False, r"gold answers must not reach training"),
        ("gold", True, True, r"gold answers must not reach training.*and labels are given"),
        ("gold", False, False, r"no gold answers to make labels of.*distill_gold"),
    ],
)
def test_gold_in_the_wrong_place_is_refused_before_anything_is_read(
    store: Store,
    work_uri: str,
    config_for: ConfigFor,
    prepared: Prepared,
    rule: str,
    with_gold: bool,
    given: bool,
    says: str,
) -> None:
    config = config_for(**SETTINGS, label={"rule": rule})
    gold = prepared.gold if with_gold else None
    labels = prepared.prompts if given else None
    with pytest.raises(ConfigError, match=says):
        label(prepared.prompts, [], [], labels, config, store, work_uri, gold=gold)


def test_calibrated_judgements_choose_by_the_chance_to_agree_with_the_vote(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    """The judge says 0.9 or 0.1. What he says 0.9 of agrees with the vote far less often."""
    config = config_for(**SETTINGS, label={"calibrate": "majority", "min_p_correct": 0.85})
    made, judged = complete(prepared, config, store, work_uri)
    plain = config_for(**SETTINGS, label={"min_p_correct": 0.85})
    out = label(prepared.prompts, [made], [judged], None, plain, store, work_uri)
    assert any(row.answer for row in read_rows(store, out.labels, PseudoLabel))
    with pytest.raises(DataError, match=r"no prompt got a pseudo label"):
        label(prepared.prompts, [made], [judged], None, config, store, work_uri)
    low = config_for(**SETTINGS, label={"calibrate": "majority", "min_p_correct": 0.5})
    out = label(prepared.prompts, [made], [judged], None, low, store, work_uri)
    rows = read_rows(store, out.labelled, LabelledCompletion)
    assert {row.selected for row in rows} == {True, False}


def test_one_completion_a_prompt_cannot_be_calibrated(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    generate_one = {"teacher": {"samples_per_prompt": 1, "max_tokens": 8}}
    config = config_for(judge=SETTINGS["judge"], generate=generate_one, label={"calibrate": "majority"})
    made, judged = complete(prepared, config, store, work_uri)
    with pytest.raises(DataError, match=r"too little to calibrate judgements on.*samples_per_prompt"):
        label(prepared.prompts, [made], [judged], None, config, store, work_uri)
