"""The stage report on rows in a real object store."""

import json
from dataclasses import replace

import pytest

from limbeck.config import Config, PrepareConfig, ReportConfig
from limbeck.records import (
    PseudoLabel,
)
from limbeck.stages import report
from limbeck.stages.prepare import run as prepare
from limbeck.stages.report import ReportInputs
from tests.made_run import NUM_HELDOUT, Maker, make_inputs, read
from tests.stages.conftest import put


@pytest.fixture
def config() -> Config:
    return Config(report=ReportConfig(num_resamples=200, num_examples=3))


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
