"""Open questions: nothing is compared; what the teacher judges good is learnt from, rewarded and counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Config
from limbeck.errors import ConfigError, DataError
from limbeck.judged_answers import Judge
from limbeck.manifest import Manifest, commit
from limbeck.records import EvalResult, LabelledCompletion, Prompt, PseudoLabel
from limbeck.rows import read_rows
from limbeck.stages.evaluate import run as evaluate
from limbeck.stages.generate import run as generate
from limbeck.stages.judge import run as judge
from limbeck.stages.label import Labelled
from limbeck.stages.label import run as label
from limbeck.stages.prepare import Prepared
from limbeck.stages.prepare import run as prepare
from limbeck.stages.report import ReportInputs
from limbeck.stages.report import run as report
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import put

NUM_SAMPLES = {"teacher": 4, "student": 2}


@pytest.fixture
def config_for() -> Any:
    """Settings of an open task; the judge is asked by a short template."""

    def make(**sections: Any) -> Config:
        settings = {
            "task": {"kind": "open"},
            "prepare": {"near_duplicates": None},
            "judge": {"open_template": "judge {prompt}: {completion}"},
            "label": {"rule": "judge", "validation_prompts": 4},
            "generate": {role: {"samples_per_prompt": n, "max_tokens": 8} for role, n in NUM_SAMPLES.items()},
            "evaluate": {"samples_per_prompt": 3, "max_tokens": 8},
        }
        return Config.model_validate(settings | sections)

    return make


@pytest.fixture
def prepared(store: Store, work_uri: str, config_for: Any) -> Prepared:
    """30 prompts `tell 0` to `tell 29`, every third with a reference."""
    rows = [{"prompt": f"tell {n}"} | ({"answer": "a tale"} if n % 3 == 0 else {}) for n in range(30)]
    put(store, f"{work_uri}/in/data.jsonl", "\n".join(map(json.dumps, rows)).encode())
    config = config_for(prepare={"heldout_fraction": 0.3, "near_duplicates": None})
    return prepare(f"{work_uri}/in/data.jsonl", "", config, store, work_uri)


def writer(prompt: str, seed: int | None) -> str:
    """Writes a text that no other seed writes; bad ones to one prompt of four, else two of three are good."""
    number, draw = int(prompt.split()[1].rstrip(":")), (seed or 0) % 9973
    return f"{'poor' if number % 4 == 0 or draw % 3 == 0 else 'fine'} {draw}"


def critic(prompt: str, seed: int | None) -> str:
    """Likes what is fine."""
    return "yes" if "fine" in prompt else "no"


def answers(prepared: Prepared, role: Any, config: Config, store: Store, work_uri: str) -> Manifest:
    sampler = ScriptedSampler(writer)
    return generate(prepared.prompts, role, lambda: sampler, config, store, work_uri, role=role)


def judged(prepared: Prepared, made: Manifest, config: Config, store: Store, work_uri: str) -> Manifest:
    return judge(prepared.prompts, made, "t", lambda: ScriptedSampler(critic), config, store, work_uri)


def labelled(prepared: Prepared, config: Config, store: Store, work_uri: str) -> tuple[Labelled, Labelled]:
    """Teacher's and student's side."""
    sides = {role: answers(prepared, role, config, store, work_uri) for role in ("teacher", "student")}
    said = {role: [judged(prepared, made, config, store, work_uri)] for role, made in sides.items()}
    first = label(prepared.prompts, [sides["teacher"]], said["teacher"], None, config, store, work_uri)
    given = first.labels
    second = label(prepared.prompts, [sides["student"]], said["student"], given, config, store, work_uri)
    return first, second


def test_the_label_is_a_good_completion_and_every_good_one_is_selected(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    made, _ = labelled(prepared, config_for(), store, work_uri)
    labels = read_rows(store, made.labels, PseudoLabel)
    assert {row.reason for row in labels} == {"labelled", "none judged good"}
    assert all(row.answer is None or row.answer.startswith("fine") for row in labels)
    rows = read_rows(store, made.labelled, LabelledCompletion)
    for row in rows:
        good = row.text.startswith("fine")
        assert (row.pseudo_reward, row.selected) == (float(good), good)
    good_ones = {row.prompt_id: 0 for row in rows}
    for row in rows:
        good_ones[row.prompt_id] += row.pseudo_reward > 0
    assert max(good_ones.values()) > 1  # not the label alone
    assert {row.prompt_id: row.vote_share for row in labels if row.answer} == {
        prompt_id: number / NUM_SAMPLES["teacher"] for prompt_id, number in good_ones.items()
    }


def test_a_student_completion_earns_what_its_own_judgement_says(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    first, made = labelled(prepared, config_for(), store, work_uri)
    rows = read_rows(store, made.labelled, LabelledCompletion)
    assert {row.source for row in rows} == {"student"}
    assert {row.pseudo_reward for row in rows} == {0.0, 1.0}
    assert all(row.pseudo_reward == row.text.startswith("fine") for row in rows)
    unlabelled = {row.prompt_id for row in read_rows(store, first.labels, PseudoLabel) if not row.answer}
    assert unlabelled
    assert unlabelled.isdisjoint(row.prompt_id for row in rows)


def test_student_completions_without_judgements_are_refused(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    config = config_for()
    first, _ = labelled(prepared, config, store, work_uri)
    made = answers(prepared, "student", config, store, work_uri)
    with pytest.raises(DataError) as caught:
        label(prepared.prompts, [made], [], first.labels, config, store, work_uri)
    for words in ("without a judgement", "the student's too", "task.kind is open", "distill_open"):
        assert words in str(caught.value)


def evaluated(
    prepared: Prepared,
    config: Config,
    store: Store,
    work_uri: str,
    asked: list[str],
    *,
    name: str = "x",
    **sampler: Any,
) -> Manifest:
    """Held-out answers and their judgement; `asked` takes who was loaded."""

    def open_as(role: str, answer: Any, **settings: Any) -> Any:
        def load() -> ScriptedSampler:
            asked.append(role)
            return ScriptedSampler(answer, **settings)

        return load

    return evaluate(
        prepared.heldout,
        prepared.gold,
        "m",
        open_as("model", writer),
        config,
        store,
        work_uri,
        name=name,
        judge=Judge("t", open_as("judge", critic, **sampler)),
    )


def test_accuracy_is_the_share_of_answers_that_the_judge_finds_good_whatever_gold_says(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    made = evaluated(prepared, config_for(), store, work_uri, [])
    rows = read_rows(store, made, EvalResult)
    assert len(rows) == prepared.heldout.num_rows * 4
    assert all(row.correct == row.text.startswith("fine") for row in rows)
    sampled = [bool(row.correct) for row in rows if row.decoding == "sampled"]
    assert made.metrics["evaluate/accuracy_sampled"] == pytest.approx(sum(sampled) / len(sampled))
    assert 0 < made.metrics["evaluate/accuracy_sampled"] < 1
    assert (made.kind, made.name) == ("results", "x")


def test_another_threshold_asks_the_judge_anew_and_the_model_not(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    asked: list[str] = []
    config = config_for()
    first = evaluated(prepared, config, store, work_uri, asked)
    assert evaluated(prepared, config, store, work_uri, asked) == first
    assert asked == ["model", "judge"]
    strict = config_for(label={"rule": "judge", "min_p_correct": 0.95})
    made = evaluated(prepared, strict, store, work_uri, asked)
    assert asked == ["model", "judge", "judge"]
    assert made.metrics["evaluate/accuracy_sampled"] == 0.0


def test_an_answer_that_cannot_be_judged_is_not_good_and_a_killed_judge_goes_on(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    config = config_for(
        generate={"rows_per_part": 5, "commit_seconds": 1e-9},
        engine={"max_model_len": 24},  # `judge tell 7: fine 9972` fits, `judge tell 17: fine 9972` does not
    )
    of = {row.prompt_id: row.prompt for row in read_rows(store, prepared.heldout, Prompt)}
    whole = evaluated(prepared, config, store, f"{work_uri}/whole", [])
    rows = read_rows(store, whole, EvalResult)
    long = [len(f"judge {of[row.prompt_id]}: {row.text}") > 23 for row in rows]
    assert [row.correct for row in rows] == [
        row.text.startswith("fine") and not too_long for row, too_long in zip(rows, long, strict=True)
    ]
    assert whole.rejected == {"judge prompt too long": sum(long)}
    with pytest.raises(KeyboardInterrupt):
        evaluated(prepared, config, store, f"{work_uri}/killed", [], die_after=4)
    asked: list[str] = []
    again = evaluated(prepared, config, store, f"{work_uri}/killed", asked)
    assert asked == ["judge"]
    assert again.content_hash == whole.content_hash
    # One token a character, of what was asked; `yes` or `no` is answered.
    judged = [(row, f"judge {of[row.prompt_id]}: {row.text}") for row in rows if row.num_judge_tokens]
    assert len(judged) == len(rows) - sum(long)
    for made in (whole, again):
        assert made.metrics["evaluate/judge_prompt_tokens"] == sum(len(question) for _, question in judged)
        assert made.metrics["evaluate/judge_completion_tokens"] == sum(
            len("yes" if row.text.startswith("fine") else "no") for row, _ in judged
        )
        assert made.metrics["evaluate/completion_tokens"] == sum(len(row.text) for row in rows)


def test_an_answer_that_is_not_there_is_not_good_whatever_the_judge_says(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    made = evaluate(
        prepared.heldout,
        prepared.gold,
        "m",
        lambda: ScriptedSampler(lambda prompt, seed: " " if (seed or 0) % 2 else "fine"),
        config_for(),
        store,
        work_uri,
        name="x",
        judge=Judge("t", lambda: ScriptedSampler(lambda prompt, seed: "yes")),
    )
    rows = read_rows(store, made, EvalResult)
    assert {(row.text, row.answer, row.correct) for row in rows} == {
        (" ", None, False),
        ("fine", "fine", True),
    }


def test_open_answers_without_a_judge_are_refused_before_the_model_is_loaded(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared
) -> None:
    with pytest.raises(ConfigError, match="nobody judges the answers") as caught:
        evaluate(prepared.heldout, prepared.gold, "m", _never, config_for(), store, work_uri, name="x")
    assert "distill_open" in str(caught.value)


def checkpoint(store: Store, work_uri: str, folder: Path) -> Manifest:
    """A policy with the history of a run in which nothing agreed."""
    (folder / "config.json").write_text("{}")
    step = {"update": 1, "ppo/score": 0.5, "ppo/kl": 0.25, "ppo/validation_proxy": 0.4}
    (folder / "history.jsonl").write_text(json.dumps(step | {"ppo/validation_length": 9.0}) + "\n")
    made = Manifest(
        stage="ppo",
        kind="checkpoint",
        name="ppo_model",
        uri=f"{work_uri}/ppo/model",
        objects=tuple(store.write_folder(folder, f"{work_uri}/ppo/model")),
        inputs={},
        config_hash="c",
        code_version="v",
    )
    return commit(store, made)


def test_the_report_says_what_the_judge_finds_good_and_who_the_judge_is(
    store: Store, work_uri: str, config_for: Any, prepared: Prepared, tmp_path: Path
) -> None:
    config = config_for(report={"num_resamples": 200, "num_examples": 40})
    sides = {role: answers(prepared, role, config, store, work_uri) for role in ("teacher", "student")}
    said = [judged(prepared, sides["teacher"], config, store, work_uri)]
    voted = label(prepared.prompts, [sides["teacher"]], said, None, config, store, work_uri)
    policy = checkpoint(store, work_uri, tmp_path)
    inputs = ReportInputs(
        prompts=prepared.prompts,
        heldout=prepared.heldout,
        gold=prepared.gold,
        completions=(sides["teacher"],),
        judgements=tuple(said),
        labels=voted.labels,
        student_completions=(sides["student"],),
        policies=(policy,),
        policy=policy,
        results=tuple(
            evaluated(prepared, config, store, work_uri, [], name=name)
            for name in ("teacher", "student", "sft_selected", "ppo_model")
        ),
    )
    manifest = report(inputs, config, store, work_uri)
    files = {item.uri.rsplit("/", 1)[1]: store.read_bytes(item.uri).decode() for item in manifest.objects}
    made = json.loads(files["report.json"])
    assert {(row["name"], row["decoding"]) for row in made["rows"]} >= {("policy", "sampled")}
    assert {row["decoding"] for row in made["rows"]} == {"sampled", "greedy"}  # no majority
    assert all(row["accuracy"] is not None and row["n"] == prepared.heldout.num_rows for row in made["rows"])
    assert made["fidelity"] == []
    assert made["decision"]["headline"].startswith("By the teacher's judgement: ")
    assert "answers that the teacher judges good" in made["decision"]["reason"]
    assert made["labels"]["rule"] == "judge"
    assert {vote["rule"] for vote in made["labels"]["votes"]} == {"judge"}
    assert (made["labels"]["precision"], made["labels"]["curves"]) == (None, [])
    assert {item["student_agreement"] for item in made["labels"]["by_vote_share"]} == {None}
    assert made["labels"]["unlabelled"] == {"none judged good": voted.labels.rejected["none judged good"]}
    assert made["ppo"]["model"]["validation_agreement"] is None
    for page in (files["report.html"], files["report.md"]):
        text = page.replace("&#39;", "'").replace("\\", "")
        for words in (
            "Answers that the judge finds good,",
            "The judge is the teacher.",
            "The monitor for reward hacking was off",
            "not good",
            "a tale",
        ):
            assert words in text
        for words in ("Right answers", "a tied majority", "(wrong)", "no gold answers"):
            assert words not in text
    assert "Thresholds of the vote share" not in files["labels.html"]
    for name in ("report.html", "report.md", "labels.html"):
        assert "good completions" in files[name].lower()
        assert "student agrees" not in files[name].lower()


def _never() -> Any:
    raise AssertionError("the model was loaded")


def test_prompts_need_no_answers(store: Store, work_uri: str, config_for: Any, prepared: Prepared) -> None:
    prompts = {row.prompt for side in prepared[:2] for row in read_rows(store, side, Prompt)}
    assert prompts == {f"tell {n}" for n in range(30)}
    assert 0 < prepared.gold.num_rows < 30
