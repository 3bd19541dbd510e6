"""The stage report on inputs that it refuses, and on those that it knows already."""

from dataclasses import replace

import pytest

from limbeck.config import Config, ReportConfig
from limbeck.errors import DataError, StorageError
from limbeck.stages import report
from tests.made_run import Maker, make_inputs


@pytest.fixture
def config() -> Config:
    return Config(report=ReportConfig(num_resamples=200, num_examples=3))


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
