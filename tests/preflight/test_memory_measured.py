"""The memory formulas against tensors that torch really keeps, counted on a CPU."""

import gc
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.config import WIDTH, DeepSpeedConfig, Dtype, ModelConfig
from limbeck.preflight import memory
from limbeck.preflight.memory import Shape
from limbeck.preflight.models import check_model
from limbeck.preflight.places import Place
from limbeck.trainer.engines import DTYPES, start_process, wrap
from limbeck.trainer.layout import padded
from limbeck.trainer.logprobs import completion_logprobs
from limbeck.trainer.networks import load_policy
from tests import tiny

ROWS, ROW_TOKENS = 2, 64
MODELS: dict[str, tuple[Any, Any]] = {
    "Llama": (LlamaConfig, LlamaForCausalLM),
    "Qwen 2": (Qwen2Config, Qwen2ForCausalLM),
    "Qwen 3": (Qwen3Config, Qwen3ForCausalLM),
}


def save(name: str, folder: Path, **sizes: int) -> Shape:
    """Write a checkpoint of some sizes; gives what preflight makes of it."""
    config, model = MODELS[name]
    asked: dict[str, int] = {
        "vocab_size": len(tiny.WORDS),
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model(config(**(asked | sizes))).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    facts, findings = check_model(Place("student", str(folder), None), ModelConfig(), "config.student")
    assert findings == []
    assert facts is not None
    assert facts.shape is not None
    return facts.shape


def kept_bytes(model: Any) -> int:
    """What a forward pass keeps for the backward pass, weights apart; each storage counts once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(ROWS, ROW_TOKENS, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0  # batches hold rows of unequal length
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(ids, attention_mask=mask, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_activations_of_a_layer(name: str, dtype: Dtype, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 160, "head_dim": 16}
    kept = {}
    for layers in (1, 3):
        folder = tmp_path / str(layers)
        shape = save(name, folder, num_hidden_layers=layers, **sizes)
        model = MODELS[name][1].from_pretrained(folder, dtype=DTYPES[dtype])
        kept[layers] = kept_bytes(model.train())
    measured = (kept[3] - kept[1]) / 2 / (ROWS * ROW_TOKENS)
    assert memory.layer_activations(shape, dtype, ROW_TOKENS) == pytest.approx(measured, rel=0.01)


def live_bytes() -> int:
    """Bytes of all tensors that are alive in this process; each storage counts once."""
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, torch.Tensor)]
    return sum(
        {item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in alive}.values()
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_states_of_a_training(zero_stage: int, dtype: Dtype, tmp_path: Path) -> None:
    config = DeepSpeedConfig.model_validate({"zero_stage": zero_stage})
    start_process(1, config)
    shape = save("Llama", tmp_path, hidden_size=128, intermediate_size=512, num_hidden_layers=4)
    before = live_bytes()
    engine = wrap(load_policy(tmp_path, dtype, config), config, dtype, learning_rate=0.001, micro_batch=1)
    loss = engine(torch.zeros(1, 4, dtype=torch.long), use_cache=False).logits.float().sum()
    engine.backward(loss)
    engine.step()
    del loss
    engine.optimizer.zero_grad()
    measured = live_bytes() - before
    expected = memory.training(shape.parameters, shape.linear_widths, dtype, config).states
    bucket = memory.REDUCE_BUCKET * WIDTH[dtype] if zero_stage == 3 else 0
    assert expected - bucket == pytest.approx(measured - bucket, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_the_policy(dtype: Dtype) -> None:
    rows, tokens, vocabulary = 2, 64, 5000

    class Model(torch.nn.Module):
        def get_output_embeddings(self) -> torch.nn.Module:
            return torch.nn.Identity()

        def forward(self, *_: object, **__: object) -> Any:
            shape = (rows * tokens, vocabulary)
            return SimpleNamespace(logits=torch.zeros(shape, dtype=DTYPES[dtype], requires_grad=True))

    ids = torch.zeros(rows, tokens + 3, dtype=torch.long)
    layout = padded(ids, torch.ones_like(ids), torch.ones(rows, tokens))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        torch.autograd.backward(completion_logprobs(Model(), layout, 1.0).sum())
    events = measured.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak = max(accumulate(change for _, change in changes))
    assert memory.policy_logits(rows * tokens, vocabulary, dtype) == pytest.approx(peak, rel=0.02)
