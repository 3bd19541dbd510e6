"""sft, reward and ppo as stages: what they hand to their trainers, what they commit, where they stop.

The trainers here write a file and remember what they were given; the real ones are in tests/trainer.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from limbeck.calibration import NUM_FOLDS, Line, to_metrics
from limbeck.config import PpoReward
from limbeck.errors import ConfigError, DataError, GateError
from limbeck.manifest import Manifest, commit
from limbeck.records import LabelledCompletion, PpoPrompt, Prompt, PseudoLabel, Row, Source
from limbeck.rollout_judge import Teacher
from limbeck.rows import write_rows
from limbeck.stages import ppo, reward, sft
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor


@dataclass
class Trainer:
    """Remembers its arguments and gives what it was made with."""

    gives: dict[str, Any]
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        folder = arguments["folder"] / "result"
        folder.mkdir()
        (folder / "model.safetensors").write_text("weights")
        return SimpleNamespace(folder=folder, **self.gives)


def row(number: int, source: Source = "teacher", **values: Any) -> LabelledCompletion:
    fields = {
        "completion_id": f"{number}{source}",
        "prompt_id": str(number),
        "prompt": f"sum {number}",
        "source": source,
        "text": f"= {number}",
        "pseudo_reward": float(number % 2),
        "vote_share": 1.0,
        "selected": number % 2 == 1,
        "validation": number < 10,
    }
    return LabelledCompletion.model_validate(fields | values)


def given(
    store: Store, uri: str, kind: str, rows: list[Row], metrics: dict[str, float] | None = None
) -> Manifest:
    return commit(
        store,
        Manifest(
            stage="test",
            kind=kind,
            name=kind,
            uri=uri,
            objects=(write_rows(store, uri, rows),),
            inputs={},
            config_hash="",
            code_version="",
            num_rows=len(rows),
            metrics=metrics or {},
        ),
    )


def no_base(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(("selection", "expected"), [("selected", range(11, 40, 2)), ("all", range(10, 40))])
def test_sft_trains_on_what_was_selected_and_never_on_validation_prompts(
    store: Store, work_uri: str, config_for: ConfigFor, selection: sft.Selection, expected: range
) -> None:
    labelled = given(store, f"{work_uri}/labelled", "labelled", [row(n) for n in range(40)])
    trainer = Trainer({"history": [{"step": 1.0, "sft/loss": 0.5}]})
    config = config_for(task={"prompt_template": "Q: {prompt}"})
    made = sft.run(labelled, "hash", no_base, trainer, config, store, work_uri, selection=selection)
    assert trainer.calls[0]["pairs"] == [(f"Q: sum {n}", f"= {n}") for n in expected]
    assert (made.name, made.num_rows) == (f"sft_{selection}", len(expected))
    assert made.rejected["kept for validation"] == 10
    assert made.num_rows + sum(made.rejected.values()) == made.num_input_rows == 40
    again = sft.run(labelled, "hash", no_base, trainer, config, store, work_uri, selection=selection)
    assert again == made
    assert len(trainer.calls) == 1


def test_sft_with_nothing_selected_stops(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    labelled = given(store, f"{work_uri}/labelled", "labelled", [row(n, selected=False) for n in range(20)])
    with pytest.raises(DataError, match=r"no completion was selected.*20 labelled"):
        sft.run(labelled, "hash", no_base, Trainer({}), config_for(), store, work_uri, selection="selected")


def both_sides(store: Store, work_uri: str) -> tuple[Manifest, Manifest]:
    teacher = given(store, f"{work_uri}/t", "labelled", [row(n) for n in range(40)])
    student = given(store, f"{work_uri}/s", "labelled", [row(n, "student") for n in range(40)])
    return teacher, student


def train_reward(
    scores: list[float], store: Store, work_uri: str, config_for: ConfigFor, min_auc: float
) -> tuple[Manifest, Trainer]:
    trainer = Trainer({"history": [], "validation_scores": np.array(scores)})
    config = config_for(reward={"min_auc": min_auc})
    teacher, student = both_sides(store, work_uri)
    return reward.run(teacher, student, "hash", no_base, trainer, config, store, work_uri), trainer


RIGHT = [0.9 if n % 2 else 0.1 for n in range(10)]


def test_the_reward_model_is_measured_on_prompts_it_never_saw(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    made, trainer = train_reward(RIGHT * 2, store, work_uri, config_for, min_auc=0.9)
    (call,) = trainer.calls
    seen = {item.prompt_id for item in call["training"]}
    held = {item.prompt_id for item in call["validation"]}
    assert not seen & held
    assert (len(seen), len(held)) == (30, 10)
    assert made.metrics["reward/auc_student"] == made.metrics["reward/auc_teacher"] == 1.0
    assert made.metrics["reward/ece_student"] == pytest.approx(0.1)
    # All rows have vote share 1.
    assert made.metrics["reward/ece_vote_share_0.75_1"] == pytest.approx(0.1)
    assert made.metrics["reward/num_rows_vote_share_0.75_1"] == 20.0
    assert not any("auc_vote_share_0_0.5" in name for name in made.metrics)
    (item,) = [item for item in made.objects if item.uri.endswith("/reliability.json")]
    bins = json.loads(store.read_bytes(item.uri))
    assert set(bins) == {"teacher", "student"}
    full = {place: entry for place, entry in enumerate(bins["student"]) if entry["count"]}
    assert {place: (entry["count"], entry["observed"]) for place, entry in full.items()} == {
        0: (5, 0.0),
        8: (5, 1.0),
    }


def test_a_weak_reward_model_stops_the_run_until_the_gate_is_lowered(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    guesses = [*RIGHT, *[0.5] * 10]
    with pytest.raises(
        GateError, match=r"too weak for PPO.*at least 0\.6 \(reward\.min_auc\), got 0\.500"
    ) as caught:
        train_reward(guesses, store, work_uri, config_for, min_auc=0.6)
    assert caught.value.exit_code == 6
    made, trainer = train_reward(guesses, store, work_uri, config_for, min_auc=0.4)
    assert made.metrics["reward/auc_student"] == 0.5
    assert not trainer.calls, "the checkpoint was there already: only the gate has changed"


def test_rows_of_one_kind_teach_nothing(store: Store, work_uri: str, config_for: ConfigFor) -> None:
    teacher = given(store, f"{work_uri}/t", "labelled", [row(n, pseudo_reward=1.0) for n in range(40)])
    with pytest.raises(DataError, match=r"the training rows of the reward model are all alike"):
        reward.run(teacher, teacher, "hash", no_base, Trainer({}), config_for(), store, work_uri)


class LiveScript(ScriptedSampler):
    """The scripted sampler with weights to load."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, seed: "= 1")

    def load_weights(self, folder: Path) -> None:
        """Nothing to load."""


def run_ppo(
    store: Store,
    work_uri: str,
    config_for: ConfigFor,
    kind: PpoReward,
    student: str = "{}",
    teacher: Teacher | None = None,
    lines: tuple[Line, ...] = (),
    history: list[dict[str, float]] | None = None,
    trainer_type: type[Trainer] = Trainer,
    teacher_config: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Manifest, dict[str, Any]]:
    """30 prompts: 5 for validation, 20 with a label to train on, 5 without."""
    prompts = given(
        store, f"{work_uri}/p", "prompts", [Prompt(prompt_id=str(n), prompt=f"sum {n}") for n in range(30)]
    )
    labels = given(
        store,
        f"{work_uri}/l",
        "labels",
        [
            PseudoLabel(
                prompt_id=str(n),
                answer=str(n) if n < 25 else None,
                vote_share=1.0,
                num_votes=1,
                reason="labelled",
                validation=n < 5,
            )
            for n in range(30)
        ],
        to_metrics(lines),
    )

    def checkpoint(name: str, tokenizer: str) -> Manifest:
        uri = f"{work_uri}/{name}"
        store.write_bytes(f"{uri}/h/tokenizer.json", tokenizer.encode())
        item = store.stored(f"{uri}/h/tokenizer.json")
        return Manifest(
            stage="test",
            kind="checkpoint",
            name=name,
            uri=uri,
            objects=(item,) if item else (),
            inputs={},
            config_hash="",
            code_version="",
        )

    course = SimpleNamespace(
        history=history or [{"update": 0.0, "ppo/batch_agreement": float("nan")}],
        best_agreement=0.9,
        start_agreement=0.5,
        best_update=3,
        update=4,
        stopped=False,
    )
    trainer = trainer_type({"course": course})
    made = ppo.run(
        prompts,
        labels,
        checkpoint("student", student),
        checkpoint("reward", "{}"),
        lambda _: LiveScript(),
        trainer,
        config_for(teacher=teacher_config or {}, **settings),
        store,
        work_uri,
        reward=kind,
        teacher=teacher,
    )
    return made, (trainer.calls or [{}])[0]


def teacher_of(revision: str) -> Teacher:
    """A teacher who finds everything right."""
    return Teacher(revision, lambda: ScriptedSampler(lambda prompt, seed: "yes"))


@pytest.mark.parametrize(("kind", "num_prompts"), [("model", 25), ("mixed", 25), ("agreement", 20)])
def test_unlabelled_prompts_serve_ppo_where_the_model_scores(
    store: Store, work_uri: str, config_for: ConfigFor, kind: PpoReward, num_prompts: int
) -> None:
    made, call = run_ppo(store, work_uri, config_for, kind)
    assert len(call["prompts"]) == made.num_rows == num_prompts
    assert {item.prompt_id for item in call["validation"]} == {str(n) for n in range(5)}
    assert not {item.prompt_id for item in call["prompts"]} & {item.prompt_id for item in call["validation"]}
    assert made.metrics["ppo/validation_agreement"] == 0.9
    (history,) = [item for item in made.objects if item.uri.endswith("/history.jsonl")]
    assert "NaN" not in store.read_bytes(history.uri).decode()


def test_prompts_that_leave_no_room_for_a_rollout_are_left_out(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    # One token a character: `sum 10` and on leave no room.
    made, call = run_ppo(
        store, work_uri, config_for, "model", engine={"max_model_len": 25}, ppo={"max_tokens": 20}
    )
    assert len(call["prompts"]) == 5
    assert made.rejected == {"prompt too long": 20}


def test_a_critic_cannot_start_from_a_reward_model_with_another_tokenizer(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    with pytest.raises(ConfigError, match=r"ppo\.value_init.*Set ppo\.value_init: student"):
        run_ppo(store, work_uri, config_for, "model", student='{"other": 1}')
    run_ppo(
        store, f"{work_uri}/2", config_for, "model", student='{"other": 1}', ppo={"value_init": "student"}
    )


OPEN: dict[str, Any] = {"task": {"kind": "open"}, "label": {"rule": "judge"}}


def test_open_prompts_have_no_label_to_agree_with_and_no_agreement_is_told(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    made, call = run_ppo(store, work_uri, config_for, "model", **OPEN)
    assert {item.label for item in (*call["prompts"], *call["validation"])} == {None}
    assert {item.prompt_id for item in call["validation"]} == {str(n) for n in range(5)}
    assert not [name for name in made.metrics if name.endswith("agreement")]
    again, _ = run_ppo(store, work_uri, config_for, "model", **OPEN)
    assert again == made


@pytest.mark.parametrize("kind", ["agreement", "mixed"])
def test_open_answers_are_not_rewarded_for_agreement(
    store: Store, work_uri: str, config_for: ConfigFor, kind: PpoReward
) -> None:
    with pytest.raises(ConfigError, match=r"parameter reward.*task\.kind is open.*distill_open"):
        run_ppo(store, work_uri, config_for, kind, **OPEN)


def test_open_answers_may_be_rewarded_by_the_judge_whose_template_is_the_open_one(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    said: list[str] = []

    class Asking(Trainer):
        def __call__(self, **arguments: Any) -> Any:
            arguments["judge"](arguments["prompts"][:1], ["an answer"], [1])
            return super().__call__(**arguments)

    def answer(prompt: str, seed: int | None) -> str:
        said.append(prompt)
        return "yes"

    teacher = Teacher("a", lambda: ScriptedSampler(answer))

    def made(word: str) -> Manifest:
        settings: dict[str, Any] = OPEN | {
            "judge": {"open_template": f"{word} {{prompt}} {{completion}}"},
            "engine": {"max_model_len": 2048},
        }
        made, _ = run_ppo(
            store, f"{work_uri}/{word}", config_for, "judge", teacher=teacher, trainer_type=Asking, **settings
        )
        return made

    first, other = made("good"), made("fine")
    assert [text.split()[0] for text in said] == ["good", "fine"]
    assert key_of(first) != key_of(other)
    assert not [name for name in first.metrics if name.endswith("agreement")]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_another_algorithm_asks_for_no_critic_and_has_a_result_of_its_own(
    store: Store, work_uri: str, config_for: ConfigFor, algorithm: str
) -> None:
    made, _ = run_ppo(store, work_uri, config_for, "model", ppo={"samples_per_prompt": 2})
    settings = {"algorithm": algorithm, "samples_per_prompt": 2}
    other, _ = run_ppo(store, work_uri, config_for, "model", student='{"other": 1}', ppo=settings)
    assert other.name == made.name == "ppo_model"
    same, _ = run_ppo(store, f"{work_uri}/2", config_for, "model", ppo=settings)
    assert same.config_hash == other.config_hash != made.config_hash


def test_the_judge_is_there_while_the_policy_trains_and_scores_prompts_without_a_label_too(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    teacher = ScriptedSampler(lambda prompt, seed: "yes")
    said: list[float | None] = []

    class Asking(Trainer):
        """Asks the judge, as a trainer does."""

        def __call__(self, **arguments: Any) -> Any:
            assert not teacher.closed
            prompts = arguments["prompts"]
            verdicts = arguments["judge"](prompts, ["= 1"] * len(prompts), range(len(prompts)))
            said.extend(verdict.p_correct for verdict in verdicts)
            return super().__call__(**arguments)

    made, call = run_ppo(
        store, work_uri, config_for, "judge", teacher=Teacher("a", lambda: teacher), trainer_type=Asking
    )
    assert said == [0.9] * 25
    assert all(isinstance(item, PpoPrompt) for item in call["prompts"])
    assert teacher.closed
    assert made.name == "ppo_judge"


def test_no_other_reward_has_a_judge_and_this_one_must_have_a_teacher(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    _, call = run_ppo(store, work_uri, config_for, "mixed")
    assert call["judge"] is None
    with pytest.raises(ConfigError, match=r"no teacher to judge the rollouts in ppo, parameter teacher"):
        run_ppo(store, work_uri, config_for, "judge")


LINES = tuple(Line(1.0, 0.1 * part) for part in range(NUM_FOLDS))
OTHER_LINES = tuple(Line(2.0, 0.1 * part) for part in range(NUM_FOLDS))
CALIBRATES = {"label": {"calibrate": "majority"}}
JUDGED: dict[str, tuple[dict[str, Any], bool]] = {
    "another teacher": ({"teacher": teacher_of("b")}, True),
    "other settings of the judge": ({"judge": {"votes": 2}}, True),
    "verdicts that are calibrated": ({**CALIBRATES, "lines": LINES}, True),
    "lines that nobody asked for": ({"lines": LINES}, False),
    "another share of the GPU": ({"ppo": {"judge_gpu_memory_utilization": 0.5}}, False),
}


@pytest.mark.parametrize(("changes", "differs"), JUDGED.values(), ids=JUDGED)
def test_what_decides_the_judges_verdicts_is_in_the_key_of_this_reward(
    store: Store, work_uri: str, config_for: ConfigFor, changes: dict[str, Any], differs: bool
) -> None:
    given: dict[str, Any] = {"teacher": teacher_of("a")}
    made, _ = run_ppo(store, work_uri, config_for, "judge", **given)
    other, _ = run_ppo(store, f"{work_uri}/2", config_for, "judge", **given | changes)
    assert key_of(made) != key_of(other) if differs else key_of(made) == key_of(other)
    changes = {name: value for name, value in changes.items() if name not in ("teacher", "lines")}
    plain, _ = run_ppo(store, f"{work_uri}/3", config_for, "agreement")
    same, _ = run_ppo(store, f"{work_uri}/4", config_for, "agreement", **changes)
    assert key_of(plain) == key_of(same), "of no other reward"


def test_other_lines_of_calibration_are_another_key(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    given: dict[str, Any] = {"teacher": teacher_of("a"), **CALIBRATES}
    keys = [
        key_of(run_ppo(store, f"{work_uri}/{n}", config_for, "judge", lines=lines, **given)[0])
        for n, lines in enumerate((LINES, OTHER_LINES))
    ]
    assert keys[0] != keys[1]


def key_of(made: Manifest) -> str:
    """The last part of its address."""
    return made.uri.rpartition("/")[2]


def test_the_manifest_tells_what_was_not_judged_and_what_a_black_box_has_cost(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    rounds = [
        {"update": float(n), "ppo/unjudged": 0.1 * n, "ppo/judge_prompt_tokens": 1e6, "ppo/judge_tokens": 5e5}
        for n in (1, 2, 3)
    ]
    given: dict[str, Any] = {"teacher": teacher_of("a"), "history": [{"update": 0.0}, *rounds]}
    made, _ = run_ppo(store, work_uri, config_for, "judge", **given)
    assert made.metrics["ppo/unjudged"] == pytest.approx(0.2)
    assert "ppo/prompt_tokens" not in made.metrics
    prices = {"prompt_price": 2.0, "completion_price": 8.0, "price_source": "EUR"}
    run_file: dict[str, Any] = {
        "openai": {"base_url": "https://a.example/v1", **prices},
        "teacher_config": {"sampler": "openai"},
    }
    made, _ = run_ppo(store, f"{work_uri}/2", config_for, "judge", **given, **run_file)
    assert made.metrics["ppo/prompt_tokens"] == 3e6
    assert made.metrics["ppo/completion_tokens"] == 1.5e6
    assert made.metrics["ppo/cost"] == pytest.approx(3 * 2.0 + 1.5 * 8.0)
