"""Models, settings and one another: lengths, contexts, vocabularies, verdict words, GPUs."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Config, JudgeConfig, ModelConfig
from limbeck.preflight import Asked, gpus
from limbeck.preflight.context import check_context, check_lengths, check_row_lengths, context_length
from limbeck.preflight.models import Architecture, ModelFacts, check_model
from limbeck.preflight.places import Place
from limbeck.preflight.vocabulary import check_critic, check_ids, check_tokenizer, check_words
from limbeck.resources import parse_resources, requests
from tests.preflight.conftest import CONFIG, STAGES, lines

RUN = Asked(work_uri="s3://b/work", stages=STAGES)


def facts(folder: Path) -> ModelFacts:
    found, findings = check_model(Place("student", str(folder), None), ModelConfig(), "config.student")
    assert findings == []
    assert found is not None
    return found


def config(**sections: dict[str, Any]) -> Config:
    changed = {name: CONFIG.get(name, {}) | values for name, values in sections.items()}
    return Config.model_validate(CONFIG | changed)


def test_completions_must_leave_room_for_a_prompt() -> None:
    long = config(
        generate={"teacher": {"max_tokens": 64}, "student": {"max_tokens": 99}},
        ppo={"max_tokens": 64},
        evaluate={"max_tokens": 65},
    )
    found = lines(check_lengths(RUN, long))
    assert len(found) == 4
    assert found[0].startswith(
        "error: completions leave no room for a prompt in config.generate.teacher.max_tokens"
    )
    assert "expected less than config.engine.max_model_len, 64, got 64" in found[0]
    assert check_lengths(RUN, config()) == []
    assert len(check_lengths(replace(RUN, stages=["prepare", "evaluate"]), long)) == 1


CONTEXTS: dict[str, tuple[dict[str, Any], dict[str, Any], int | None]] = {
    "as the model says": ({"max_position_embeddings": 4096}, {}, 4096),
    "under an old name": ({"n_positions": 1024}, {}, 1024),
    "said by nobody": ({}, {}, None),
    "less in the tokenizer": ({"max_position_embeddings": 4096}, {"model_max_length": 2048}, 2048),
    "no bound in the tokenizer": ({"max_position_embeddings": 4096}, {"model_max_length": 1e30}, 4096),
    "stretched": (
        {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {},
        16384,
    ),
    "stretched without end": (
        {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": float("inf")}},
        {},
        None,
    ),
    "stretched beyond all measure": (
        {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 1e308}},
        {},
        None,
    ),
    "without end in the tokenizer": ({}, {"model_max_length": float("inf")}, None),
    "stretched already": (
        {"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
        {},
        4096,
    ),
    "stretched by kinds of layers": (
        {
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "full": {"rope_type": "linear", "factor": 2},
                "sliding": {"rope_type": "default"},
            },
        },
        {},
        8192,
    ),
}


@pytest.mark.parametrize(("said", "tokenizer", "length"), CONTEXTS.values(), ids=CONTEXTS)
def test_the_context_of_a_model_is_read_as_vllm_reads_it(
    said: dict[str, Any], tokenizer: dict[str, Any], length: int | None
) -> None:
    model = ModelFacts(
        place=Place("teacher", "s3://b/t", None),
        architecture=Architecture.model_validate(said),
        tokenizer=None,
        tokenizer_config=tokenizer,
        generation={},
        template=None,
        shape=None,
        stored_bytes=0,
    )
    assert context_length(model) == length


def test_the_engine_may_not_be_longer_than_the_model(made: Path) -> None:
    (line,) = lines(check_context(facts(made), config(engine={"max_model_len": 129})))
    assert line.startswith("error: the engine's context is longer than the model's")
    assert "expected at most 128, got 129. Set engine.max_model_len: 128" in line
    assert check_context(facts(made), config(engine={"max_model_len": 128})) == []


def test_training_rows_that_would_be_cut_are_a_warning(made: Path) -> None:
    found = lines(
        check_row_lengths(facts(made), RUN, config(sft={"max_length": 129}, reward={"max_length": 500}))
    )
    assert [line.partition(" for ")[0] for line in found] == [
        "warning: training rows may be longer than the model's context in config.sft.max_length",
        "warning: training rows may be longer than the model's context in config.reward.max_length",
    ]


def test_every_token_needs_an_embedding(folder: Path) -> None:
    assert check_ids(facts(folder)) == []
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 34, "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (line,) = lines(check_ids(facts(folder)))
    assert "expected ids below 34 (vocab_size of config.json), got 34" in line


def test_a_critic_from_a_teacher_needs_the_students_tokenizer(folder: Path, made: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    path.write_text(json.dumps(tokenizer | {"truncation": {"max_length": 5}}, indent=3))
    assert check_critic(facts(folder), facts(made)) == []

    tokenizer["model"]["vocab"] |= {"a": 12, "b": 11}
    path.write_text(json.dumps(tokenizer))
    (line,) = lines(check_critic(facts(folder), facts(made)))
    assert line.startswith("error: the critic cannot start from the reward model in config.ppo.value_init")
    assert line.endswith("Set ppo.value_init: student, or reward.init: student")


WORDS = {
    "two words": ("yes", "no", 0),
    "the same word": ("yes", "Yes", 1),
    "words that the tokenizer does not know": ("true", "false", 1),
    "one word that it does not know": (":", "false", 1),
}


@pytest.mark.parametrize(("yes", "no", "count"), WORDS.values(), ids=WORDS)
def test_the_verdict_words_must_begin_with_different_tokens(
    yes: str, no: str, count: int, made: Path
) -> None:
    found = lines(check_words(facts(made), JudgeConfig(yes=yes, no=no)))
    assert len(found) == count
    for line in found:
        assert line.startswith("error: the verdict words begin with the same token in config.judge.yes")


def test_a_tokenizer_that_is_none_is_a_finding(folder: Path, made: Path) -> None:
    assert check_tokenizer(facts(made)) == []
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (line,) = lines(check_tokenizer(facts(folder)))
    assert line.startswith("error: cannot read tokenizer.json in ")
    assert lines(check_words(facts(folder), JudgeConfig())) == [line]


COUNTS: dict[str, tuple[int, dict[str, Any], dict[str, Any], list[str]]] = {
    "one each": (1, {}, {}, []),
    "fewer than the split": (
        1,
        {"engine": {"tensor_parallel_size": 2}},
        {},
        ["error: fewer GPUs than the engine or the processes want in GPUs of generate, judge, ppo, evaluate"],
    ),
    "fewer than the processes": (
        2,
        {"sft": {"deepspeed": {"processes": 4}}},
        {stage: {"gpus": 1} for stage in ("generate", "judge", "evaluate")},
        ["error: fewer GPUs than the engine or the processes want in GPUs of sft"],
    ),
    "the split, and a process of each training on each": (
        2,
        {"engine": {"tensor_parallel_size": 2}},
        {"ppo": {"gpus": 1}},
        ["error: fewer GPUs than the engine or the processes want in GPUs of ppo"],
    ),
    "the split, and two processes of ppo": (
        2,
        {"engine": {"tensor_parallel_size": 2}},
        {},
        ["error: engines over several GPUs beside several training processes in engine.tensor_parallel_size"],
    ),
    "the split, and two processes of ppo without engines": (
        2,
        {"engine": {"tensor_parallel_size": 2}, "ppo": {"sampler": "transformers"}},
        {},
        [],
    ),
    "the split, and one process of ppo": (
        2,
        {"engine": {"tensor_parallel_size": 2}, "ppo": {"deepspeed": {"processes": 1}}},
        {},
        [],
    ),
    "idle beside engines and a training in one process": (
        4,
        {"sft": {"deepspeed": {"processes": 1}}},
        {},
        ["warning: 3 of 4 GPUs will stand idle in GPUs of generate, judge, sft, evaluate"],
    ),
    "more than can share a batch": (
        3,
        {"ppo": {"batch_size": 12}},
        {stage: {"gpus": 1} for stage in ("generate", "judge", "evaluate")},
        [
            "error: bad settings in config.sft with 3 processes on a node: expected the 32 rows of an update "
            "must be a multiple of the 3 processes",
            "error: bad settings in config.reward with 3 processes on a node: expected the 64 rows",
            "warning: 2 of 3 GPUs will stand idle in GPUs of sft, reward",
        ],
    ),
    "CPUs with float32": (0, {}, {}, []),
    "CPUs with bfloat16": (
        0,
        {"teacher": {"dtype": "bfloat16"}},
        {},
        ["warning: bfloat16 on CPUs, which most of them compute slowly in config.teacher.dtype"],
    ),
}


@pytest.mark.parametrize(("count", "changes", "resources", "messages"), COUNTS.values(), ids=COUNTS)
def test_each_stage_has_the_gpus_that_it_uses(
    count: int, changes: dict[str, Any], resources: dict[str, Any], messages: list[str]
) -> None:
    asks = requests(parse_resources(resources), count)
    settled, unshared = gpus.settled(config(**changes), asks, RUN.stages)
    found = lines([*unshared, *gpus.check_counts(RUN, settled, asks)])
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)


SPLITS = {
    "two of eight and four": (8, 4, 2, []),
    "more than key-value heads": (8, 4, 8, []),
    "attention heads": (6, 3, 4, ["attention", "key-value"]),
    "key-value heads": (8, 3, 2, ["key-value"]),
    "not said": (None, None, 4, []),
}


@pytest.mark.parametrize(("heads", "kv_heads", "split", "kinds"), SPLITS.values(), ids=SPLITS)
def test_heads_are_shared_out_among_gpus(
    heads: int | None, kv_heads: int | None, split: int, kinds: list[str], made: Path
) -> None:
    said = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    model = replace(facts(made), architecture=Architecture.model_validate(said))
    found = lines(gpus.check_split(model, config(engine={"tensor_parallel_size": split})))
    assert [line.partition(" heads that")[0] for line in found] == [f"error: {kind}" for kind in kinds]


def test_a_cache_of_fixed_size_must_hold_one_sequence(made: Path) -> None:
    # 2 x 1 layer x 1 head of 32 x 4 bytes: 256 bytes a token, so 1 MiB holds 4096.
    small = config(engine={"kv_cache_mib": 1, "max_model_len": 4097})
    (line,) = lines(gpus.check_kv_cache(facts(made), "float32", small))
    assert "expected at least 2 for engine.max_model_len 4097, got 1" in line
    whole = config(engine={"kv_cache_mib": 1, "max_model_len": 4096})
    assert gpus.check_kv_cache(facts(made), "float32", whole) == []


def test_memory_that_is_certainly_too_small_is_an_error_and_a_tight_one_a_warning(made: Path) -> None:
    model = facts(made)
    settings = config(engine={"kv_cache_mib": 1024})
    (error,) = lines(gpus.check_sampling(model, "float32", settings, 1 << 30))
    assert error.startswith("error: too little GPU memory in sampling with ")
    assert "expected 1.0 GiB (weights 0.0, KV cache of one sequence 1.0, workspace" in error
    (warning,) = lines(gpus.check_sampling(model, "float32", settings, 2 << 30))
    assert warning.startswith("warning: GPU memory may be too small for the longest rows")
    assert gpus.check_sampling(model, "float32", settings, 3 << 30) == []


def test_trainings_are_measured_by_what_they_need_of_a_gpu(made: Path) -> None:
    shape = facts(made).shape
    found = lines(gpus.check_training(RUN, config(), shape, shape, 1 << 29))
    assert [line.split(": expected")[0] for line in found] == [
        f"warning: GPU memory may be too small for the longest rows in stage {stage}"
        for stage in ("sft", "reward", "ppo")
    ]
    assert "reduce bucket 1.9" in found[0]
    assert "Lower sft.micro_batch_size" in found[0]


def test_an_ablation_tunes_the_teacher_too_which_must_fit(made: Path) -> None:
    shape = facts(made).shape
    assert shape
    large = replace(shape, parameters=shape.parameters + (1 << 30))
    asked = replace(RUN, stages=["sft"])
    assert gpus.check_training(asked, config(), shape, large, 8 << 30) == []
    ablation = replace(asked, stages=["sft", "ablation"])
    (line,) = lines(gpus.check_training(ablation, config(), shape, large, 8 << 30))
    assert line.startswith("error: too little GPU memory in stage sft: expected 24.0 GiB")


def test_the_engine_of_ppo_has_a_smaller_share(made: Path) -> None:
    shape = facts(made).shape
    asked = replace(RUN, stages=["ppo"])
    (line,) = [
        line
        for line in lines(
            gpus.check_training(asked, config(engine={"kv_cache_mib": None}), shape, None, 4 << 30)
        )
        if "rollouts" in line
    ]
    assert "in rollouts of stage ppo" in line
    assert "got 0.8 GiB. Raise ppo.gpu_memory_utilization" in line
    without = config(engine={"kv_cache_mib": None}, ppo={"sampler": "transformers"})
    assert "rollouts" not in str(lines(gpus.check_training(asked, without, shape, None, 4 << 30)))


def test_the_judge_of_rollouts_has_a_share_of_its_own_and_only_where_it_is_asked(made: Path) -> None:
    shape = facts(made).shape
    asked = replace(RUN, stages=["ppo"], ppo_rewards=["model", "judge"])
    settings = config(engine={"kv_cache_mib": None}, ppo={"judge_gpu_memory_utilization": 0.1})

    def judged(asked: Asked) -> list[str]:
        found = lines(gpus.check_training(asked, settings, shape, shape, 4 << 30))
        return [line for line in found if "judge of stage ppo" in line]

    (line,) = judged(asked)
    assert "got 0.4 GiB. Raise ppo.judge_gpu_memory_utilization" in line
    assert judged(replace(asked, ppo_rewards=["model"])) == []
    assert judged(replace(asked, stages=["judge"])) == []
    tight = config(engine={"kv_cache_mib": None}, ppo={"judge_gpu_memory_utilization": 0.9})
    of_all = "".join(lines(gpus.check_training(asked, tight, shape, shape, 4 << 30)))
    assert "judge 3.6" in of_all, "what is trained has the rest"


def nvidia_smi(output: str, status: int = 0) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "nvidia-smi"
        path.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


MACHINES: dict[str, tuple[Callable[[Path], None], int | None]] = {
    "no GPU": (lambda _: None, None),
    "two, the smaller counts": (nvidia_smi("81559\n40960"), 40960 << 20),
    "a driver that fails": (nvidia_smi("failed", 9), None),
    "an answer that is none": (nvidia_smi("[N/A]"), None),
}


@pytest.mark.parametrize(("install", "size"), MACHINES.values(), ids=MACHINES)
def test_memory_is_asked_of_the_machine_when_no_setting_says_it(
    install: Callable[[Path], None], size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.gpu_bytes(config(engine={"gpu_memory_gib": None})) == size
    assert gpus.gpu_bytes(config(engine={"gpu_memory_gib": 24})) == 24 << 30
