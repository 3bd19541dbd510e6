"""The stage report on rows in a real object store."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from limbeck.config import Config, PrepareConfig, ReportConfig
from limbeck.errors import DataError, StorageError
from limbeck.manifest import Manifest, commit
from limbeck.records import (
    Completion,
    EvalResult,
    GoldAnswer,
    Judgement,
    Prompt,
    PseudoLabel,
    Row,
    Source,
)
from limbeck.rows import write_rows
from limbeck.stages import report
from limbeck.stages.prepare import run as prepare
from limbeck.stages.report import ReportInputs
from limbeck.storage import Store
from tests.stages.conftest import put

NUM_HELDOUT = 40
# How many of the held-out prompts each model has right: always the first ones.
RIGHT = {"teacher": 20, "student": 8, "sft_selected": 22, "ppo_model": 26, "ppo_mixed": 32}
HISTORY = '{"update": 1, "ppo/score": 0.5, "ppo/batch_agreement": 0.6, "ppo/kl": null}\n'


@dataclass(frozen=True)
class Maker:
    """Puts made rows and checkpoints into the store."""

    store: Store
    work_uri: str
    folder: Path

    def rows(self, stage: str, name: str, rows: list[Row], **values: object) -> Manifest:
        uri = f"{self.work_uri}/{stage}/{name}"
        objects = [write_rows(self.store, uri, rows)] if rows else []
        return self._commit(stage, name, uri, objects=objects, num_rows=len(rows), **values)

    def checkpoint(self, stage: str, name: str, history: str = HISTORY, **metrics: float) -> Manifest:
        folder = self.folder / stage / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "history.jsonl").write_text(history)
        uri = f"{self.work_uri}/{stage}/{name}"
        objects = self.store.write_folder(folder, uri)
        return self._commit(
            stage,
            name,
            uri,
            objects=objects,
            metrics={f"{stage}/{key}": value for key, value in metrics.items()},
        )

    def _commit(self, stage: str, name: str, uri: str, **values: object) -> Manifest:
        made = {
            "stage": stage,
            "kind": "made",
            "name": name,
            "uri": uri,
            "inputs": {},
            "config_hash": "c",
            "code_version": "v",
        }
        return commit(self.store, Manifest.model_validate(made | values))


def completion(prompt_id: str, source: Source, index: int, answer: str) -> Completion:
    return Completion(
        completion_id=f"{source}{prompt_id}{index}",
        prompt_id=prompt_id,
        source=source,
        text=f"= {answer}",
        answer=answer,
        temperature=(0.3, 1.0)[index % 2],
        sample_index=index,
        seed=1,
        logprob=-1.0,
        num_tokens=2,
        finish_reason="stop",
    )


def results(name: str, *, with_gold: bool) -> list[Row]:
    return [
        EvalResult(
            prompt_id=f"h{number:02d}",
            name=name,
            decoding=decoding,
            sample_index=0,
            text="<script>alert(1)</script>",
            answer="A",
            correct=number < RIGHT[name] if with_gold else None,
            num_tokens=10 + number % 2,
            finish_reason="stop",
        )
        for decoding in ("greedy", "sampled")
        for number in range(NUM_HELDOUT)
    ]


def make_inputs(maker: Maker, *, with_gold: bool) -> ReportInputs:
    train = [f"p{number}" for number in range(4)]
    heldout = [f"h{number:02d}" for number in range(NUM_HELDOUT)]
    teacher = [completion(p, "teacher", i, "a" if i < 3 else "b") for p in train for i in range(4)]
    student = [completion(p, "student", i, "b") for p in train for i in range(2)]
    # Gold as people write it; answers in rows are in their normal form.
    gold = [GoldAnswer(prompt_id=p, answer=" A. ") for p in (*train, *heldout)] if with_gold else []
    policies = tuple(
        maker.checkpoint("ppo", name, validation_agreement=0.7, stopped_by_monitor=stopped)
        for name, stopped in (("ppo_model", 1.0), ("ppo_mixed", 0.0))
    )
    return ReportInputs(
        prompts=maker.rows("prepare", "prompts", [Prompt(prompt_id=p, prompt=p) for p in train]),
        heldout=maker.rows("prepare", "heldout", [Prompt(prompt_id=p, prompt=f"<b>{p}") for p in heldout]),
        gold=maker.rows("prepare", "gold", list(gold)),
        completions=(
            maker.rows("generate", "teacher-0", list(teacher[:8]), rejected={"prompt too long": 1}),
            maker.rows("generate", "teacher-1", list(teacher[8:])),
        ),
        judgements=(
            maker.rows(
                "judge",
                "judge",
                [
                    Judgement(completion_id=row.completion_id, prompt_id=row.prompt_id, p_correct=0.9)
                    for row in teacher
                ],
            ),
        ),
        labels=maker.rows(
            "label",
            "labels",
            [
                PseudoLabel(
                    prompt_id=p, answer="a", vote_share=0.75, num_votes=4, reason="labelled", validation=False
                )
                for p in train
            ],
        ),
        sft_checkpoints=(maker.checkpoint("sft", "sft_selected"),),
        student_completions=(maker.rows("generate", "student", list(student)),),
        reward_model=maker.checkpoint("reward", "reward", auc_student=0.83),
        policies=policies,
        policy=policies[1],
        results=tuple(maker.rows("evaluate", name, results(name, with_gold=with_gold)) for name in RIGHT),
    )


@pytest.fixture
def maker(store: Store, work_uri: str, tmp_path: Path) -> Maker:
    return Maker(store, work_uri, tmp_path)


@pytest.fixture
def config() -> Config:
    return Config(report=ReportConfig(num_resamples=200, num_examples=3))


def read(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """The files of a report by name."""
    return {item.uri.rsplit("/", 1)[1]: store.read_bytes(item.uri) for item in manifest.objects}


def test_a_whole_report(maker: Maker, config: Config) -> None:
    inputs = make_inputs(maker, with_gold=True)
    manifest = report.run(inputs, config, maker.store, maker.work_uri)
    files = read(maker.store, manifest)
    assert set(files) == {"report.json", "report.html", "report.md", "labels.json", "labels.html"}
    made = json.loads(files["report.json"])

    rows = {(row["name"], row["decoding"]): row for row in made["rows"]}
    assert rows["teacher", "sampled"]["accuracy"] == 0.5
    assert rows["teacher", "sampled"]["n"] == NUM_HELDOUT
    assert rows["policy", "greedy"]["accuracy"] == rows["ppo_mixed", "greedy"]["accuracy"] == 0.8
    compared = {(c["a"], c["b"], c["decoding"]): c for c in made["comparisons"]}
    assert compared["policy", "teacher", "sampled"]["difference"] == pytest.approx(0.3)
    low, high = compared["policy", "sft_selected", "sampled"]["interval"]
    assert 0 < low < 0.25 < high

    agreed = {(row["name"], row["decoding"]): row for row in made["fidelity"]}
    # All answer alike, but gold tells right from wrong: 28 of 40 are right, or wrong, with the teacher.
    assert agreed["policy", "greedy"]["agreement"] == 28 / 40
    assert agreed["policy", "greedy"]["agreement_teacher_wrong"] == 8 / 20
    lengths = {(row["name"], row["decoding"]): row for row in made["lengths"]}
    assert (lengths["policy", "sampled"]["mean_tokens"], lengths["policy", "sampled"]["cost"]) == (10.5, None)

    assert made["decision"]["promote"] is True
    assert made["decision"]["policy"] == "ppo_mixed"
    checkpoint = made["decision"]["checkpoint_uri"]
    assert f"{checkpoint}/config.json" in {item.uri for item in inputs.policies[1].objects}

    assert made["labels"]["coverage"] == 1.0
    assert made["labels"]["precision"] == 1.0
    assert made["labels"]["teacher"][0]["accuracy"] == 0.75
    judged = made["labels"]["judge"][0]
    assert [judged[key] for key in ("tp", "fp", "tn", "fn")] == [12, 4, 0, 0]
    assert made["reward"]["by_source"]["student"]["auc"] == 0.83
    assert made["ppo"]["mixed"]["steps"][0]["agreement"] == 0.6
    assert (made["ppo"]["model"]["stopped_by_monitor"], made["ppo"]["model"]["picked"]) == (True, False)

    stages = {(stage["stage"], stage["name"]): stage for stage in made["stages"]}
    assert stages["generate", "teacher-0"]["rejected"] == {"prompt too long": 1}
    assert ("ppo", "ppo_mixed") in stages
    assert len([stage for stage in stages if stage[0] == "ppo"]) == 2
    hashes = {item["content_hash"] for item in made["provenance"]}
    assert inputs.gold.content_hash in hashes

    assert len(made["examples"]) == 3
    assert [a["name"] for a in made["examples"][0]["answers"]] == ["policy", "sft_selected", "teacher"]
    assert b"<script" not in files["report.html"]
    assert b"<b>h00" not in files["report.html"]
    assert manifest.metrics["report/accuracy_policy_sampled"] == 0.8
    assert manifest.metrics["report/agreement_policy_greedy"] == 28 / 40
    assert manifest.metrics["report/tokens_policy_greedy"] == 10.5
    assert manifest.metrics["report/promote"] == 1.0


def test_a_run_without_ppo_holds_the_tuned_student_against_the_one_that_came(
    maker: Maker, config: Config
) -> None:
    """`distill_data`: no student completions, reward model or policies."""
    whole = make_inputs(maker, with_gold=True)
    inputs = replace(
        whole,
        student_completions=(),
        reward_model=None,
        policies=(),
        policy=whole.sft_checkpoints[0],
        results=whole.results[:3],
    )
    manifest = report.run(inputs, config, maker.store, maker.work_uri)
    files = read(maker.store, manifest)
    made = json.loads(files["report.json"])
    assert (made["reward"], made["ppo"]) == (None, {})
    names = [row["name"] for row in made["rows"] if row["decoding"] == "sampled"]
    assert names == ["teacher", "student", "sft_selected"]  # and none of them again as `policy`
    assert {item["b"] for item in made["comparisons"]} == {"student", "teacher"}
    assert (made["decision"]["outcome"], made["decision"]["policy"]) == ("promote", "sft_selected")
    assert made["decision"]["checkpoint_uri"].startswith(f"{whole.sft_checkpoints[0].uri}/")
    assert (made["labels"]["student"], made["labels"]["precision"]) == ([], 1.0)
    assert [a["name"] for a in made["examples"][0]["answers"]] == ["sft_selected", "student", "teacher"]
    assert manifest.metrics["report/promote"] == 1.0
    for page in (files["report.html"], files["report.md"]):
        assert b"Reward model" not in page
        assert b"Reinforcement" not in page


def test_a_run_from_a_warmed_up_student_holds_the_policy_against_it(maker: Maker, config: Config) -> None:
    """`distill_rewards`: no teacher completions, judgements, SFT or teacher's results."""
    whole = make_inputs(maker, with_gold=True)
    inputs = replace(whole, completions=(), judgements=(), sft_checkpoints=(), results=whole.results[2:])
    files = read(maker.store, report.run(inputs, config, maker.store, maker.work_uri))
    made = json.loads(files["report.json"])
    assert {item["b"] for item in made["comparisons"]} == {"sft_selected"}
    assert (made["decision"]["outcome"], made["decision"]["policy"]) == ("promote", "ppo_mixed")
    assert (made["labels"]["votes"], made["labels"]["teacher"], made["labels"]["judge"]) == ([], [], [])
    assert made["labels"]["student"][0]["num_completions"] == 8
    assert [a["name"] for a in made["examples"][0]["answers"]] == ["policy", "sft_selected"]
    assert b"single teacher completions" not in files["report.html"]


def test_a_run_that_only_evaluates_compares_with_its_first_model(maker: Maker, config: Config) -> None:
    whole = make_inputs(maker, with_gold=True)
    # Not in the report's order: the first one that was given is the baseline.
    results = (whole.results[3], whole.results[1], whole.results[4])
    inputs = ReportInputs(heldout=whole.heldout, gold=whole.gold, results=results)
    manifest = report.run(inputs, config, maker.store, maker.work_uri)
    made = json.loads(read(maker.store, manifest)["report.json"])
    assert (made["labels"], made["reward"], made["ppo"]) == (None, None, {})
    assert [row["name"] for row in made["rows"][:3]] == ["ppo_model", "student", "ppo_mixed"]
    compared = {(c["a"], c["b"], c["decoding"]): c for c in made["comparisons"]}
    assert {b for _, b, _ in compared} == {"ppo_model"}
    assert compared["ppo_mixed", "ppo_model", "sampled"]["difference"] == pytest.approx(0.15)
    assert compared["ppo_mixed", "ppo_model", "sampled"]["interval"][0] > 0
    assert (made["decision"]["outcome"], made["decision"]["policy"]) == ("not decided", None)
    assert "1 of 2 better and 1 worse" in made["decision"]["reason"]
    assert len(made["examples"][0]["answers"]) == 3
    assert set(manifest.metrics) == {
        f"report/{figure}_{name}_{decoding}"
        for figure in ("accuracy", "tokens")
        for name in ("ppo_model", "student", "ppo_mixed")
        for decoding in ("greedy", "sampled")
    }


def test_what_prepare_says_of_the_data_is_shown(maker: Maker, config: Config) -> None:
    texts = [
        f"In a shop on the corner {n} men wait for bread while a dog sleeps under the table" for n in range(9)
    ]
    rows = [
        json.dumps({"prompt": text}) for text in [*texts, texts[4] + "...", "<i>What?</i>", "<i>What?!</i>"]
    ]
    data = f"{maker.work_uri}/in/data.jsonl"
    put(maker.store, data, "\n".join(rows).encode())
    asked = config.model_copy(update={"prepare": PrepareConfig(heldout_fraction=0.01)})
    held = f"{maker.work_uri}/in/held.jsonl"
    put(maker.store, held, b'{"prompt": "Another one, of twenty letters?"}')
    prepared = prepare(data, held, asked, maker.store, maker.work_uri)

    inputs = replace(make_inputs(maker, with_gold=True), prompts=prepared.prompts, heldout=prepared.heldout)
    files = read(maker.store, report.run(inputs, asked, maker.store, maker.work_uri))
    train, heldout = json.loads(files["report.json"])["data"]
    assert (train["side"], train["num_prompts"], train["num_alike"]) == ("train", 10, {"near duplicate": 2})
    assert train["words"] == {"p5": 8, "median": 18, "p95": 18, "maximum": 18}
    assert (heldout["side"], heldout["num_prompts"], heldout["characters"]["maximum"]) == ("held-out", 1, 31)
    page, markdown = files["report.html"].decode(), files["report.md"].decode()
    assert "near duplicate: 2" in page
    assert "<i>" not in page
    assert "&lt;i&gt;What?" in page
    assert "| train | 10 | 18 (8 to 18) |" in markdown


def test_statistics_of_somebody_else_are_refused(maker: Maker, config: Config) -> None:
    whole = make_inputs(maker, with_gold=True)
    path = maker.folder / "statistics.json"
    path.write_text('{"side": "left"}')
    objects = (*whole.heldout.objects, maker.store.write_file(path, f"{whole.heldout.uri}/statistics.json"))
    inputs = replace(whole, heldout=whole.heldout.model_copy(update={"objects": objects}))
    with pytest.raises(DataError, match=r"not the statistics of prompts in .*/statistics\.json.* at side"):
        report.run(inputs, config, maker.store, maker.work_uri)


def test_two_models_of_one_name_are_refused(maker: Maker, config: Config) -> None:
    whole = make_inputs(maker, with_gold=True)
    other = whole.results[1].model_copy(update={"uri": "s3://other/student"})
    inputs = replace(whole, results=(*whole.results, other))
    with pytest.raises(
        DataError, match=r"two evaluations of one name in .*s3://other/student.*got 'student'"
    ):
        report.run(inputs, config, maker.store, maker.work_uri)


def test_the_same_inputs_are_not_reported_twice(
    maker: Maker, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = make_inputs(maker, with_gold=True)
    first = report.run(inputs, config, maker.store, maker.work_uri)
    capsys.readouterr()
    assert report.run(inputs, config, maker.store, maker.work_uri) == first
    assert "already complete" in capsys.readouterr().out
    other = config.model_copy(update={"seed": 2})
    assert report.run(inputs, other, maker.store, maker.work_uri).uri != first.uri


def test_the_same_rows_give_the_same_bytes(maker: Maker, config: Config) -> None:
    inputs = make_inputs(maker, with_gold=True)
    first = report.run(inputs, config, maker.store, maker.work_uri)
    again = report.run(inputs, config, maker.store, f"{maker.work_uri}/again")
    assert read(maker.store, first) == read(maker.store, again)


def test_without_gold_nothing_is_decided(maker: Maker, config: Config) -> None:
    inputs = make_inputs(maker, with_gold=False)
    manifest = report.run(inputs, config, maker.store, maker.work_uri)
    files = read(maker.store, manifest)
    made = json.loads(files["report.json"])
    assert made["decision"]["outcome"] == "not decided"
    assert made["decision"]["promote"] is False
    assert {row["accuracy"] for row in made["rows"]} == {None}
    assert made["labels"]["precision"] is None
    assert made["labels"]["coverage"] == 1.0
    assert b"no gold answers" in files["report.html"]
    assert not any(name.startswith("report/accuracy") for name in manifest.metrics)


def test_a_ppo_run_without_its_history_is_refused(maker: Maker, config: Config) -> None:
    inputs = make_inputs(maker, with_gold=True)
    bare = inputs.policies[0].model_copy(update={"objects": inputs.policies[0].objects[:1]})
    with pytest.raises(DataError, match=r"history\.jsonl"):
        report.run(replace(inputs, policies=(bare, inputs.policies[1])), config, maker.store, maker.work_uri)


def test_an_input_that_is_gone_is_named(maker: Maker, config: Config) -> None:
    """Also one whose bytes the report does not read: it vouches for every address it lists."""
    inputs = make_inputs(maker, with_gold=True)
    (sft,) = inputs.sft_checkpoints
    gone = sft.objects[0].model_copy(update={"uri": f"{sft.uri}/gone/model.safetensors"})
    lost = sft.model_copy(update={"objects": (*sft.objects, gone)})
    with pytest.raises(StorageError, match=r"gone/model\.safetensors"):
        report.run(replace(inputs, sft_checkpoints=(lost,)), config, maker.store, maker.work_uri)


def test_the_label_report_names_the_worst_disagreements_with_their_texts(
    maker: Maker, config: Config
) -> None:
    inputs = make_inputs(maker, with_gold=True)
    files = read(maker.store, report.run(inputs, config, maker.store, maker.work_uri))
    made = json.loads(files["labels.json"])
    assert made["quality"] == json.loads(files["report.json"])["labels"]
    assert made["wrong_labels"] == []  # all four labels are right
    shown = {
        (item["prompt"], item["text"], item["answer"], item["gold"]) for item in made["wrong_judgements"]
    }
    assert shown == {(f"p{number}", "= b", "b", "a") for number in (3, 2, 1)}  # num_examples is 3
    assert b"= b" in files["labels.html"]


def test_a_run_without_labels_has_no_label_report(maker: Maker, config: Config) -> None:
    whole = make_inputs(maker, with_gold=True)
    inputs = ReportInputs(heldout=whole.heldout, gold=whole.gold, results=whole.results[:2])
    files = read(maker.store, report.run(inputs, config, maker.store, maker.work_uri))
    assert set(files) == {"report.json", "report.html", "report.md"}


def test_a_run_with_gold_labels_is_an_upper_bound_and_never_promoted(maker: Maker, config: Config) -> None:
    whole = make_inputs(maker, with_gold=True)
    labels = maker.rows(
        "label",
        "gold_labels",
        [
            PseudoLabel(
                prompt_id=f"p{n}",
                answer="a",
                vote_share=0.75,
                num_votes=4,
                reason="gold answer",
                validation=False,
            )
            for n in range(4)
        ],
    )
    manifest = report.run(replace(whole, labels=labels), config, maker.store, maker.work_uri)
    made = json.loads(read(maker.store, manifest)["report.json"])
    assert (made["labels"]["rule"], made["decision"]["promote"]) == ("gold", False)
    assert made["decision"]["headline"] == "An upper bound: its labels were gold answers"
    assert manifest.metrics["report/promote"] == 0.0


def test_a_reliability_diagram_that_is_none_is_refused(maker: Maker, config: Config) -> None:
    whole = make_inputs(maker, with_gold=True)
    assert whole.reward_model is not None
    uri = f"{whole.reward_model.uri}/abc/reliability.json"
    maker.store.write_bytes(uri, b'{"teacher": [{"low": 0}]}')
    item = maker.store.stored(uri)
    assert item is not None
    broken = whole.reward_model.model_copy(update={"objects": (*whole.reward_model.objects, item)})
    with pytest.raises(DataError, match=r"not a reliability diagram.*reliability\.json"):
        report.run(replace(whole, reward_model=broken), config, maker.store, maker.work_uri)
