"""The networks that are trained: a causal LM (policy) and a scorer (reward model, critic).

Shapes: B rows, S tokens of prompt and completion.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import deepspeed
import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations import apply_liger_kernel

from limbeck.config import DeepSpeedConfig, Dtype
from limbeck.errors import DataError
from limbeck.trainer import ranks
from limbeck.trainer.engines import DTYPES

# A folder's files besides the weights; everything a Hugging Face checkpoint needs to be loaded.
WEIGHTS = "model.safetensors"
# A trained model runs no code of its own, and its weights are no pickle.
SAFE = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True}


def load_tokenizer(folder: Path) -> Any:
    """A checkpoint's tokenizer, with a padding token.

    Raises:
        DataError: when it cannot be loaded without running its code, or has no chat template.
    """
    with _loading(folder):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise ValueError(error) from error  # the package tokenizers raises the bare class alone
    if not tokenizer.chat_template:
        raise DataError(
            "the tokenizer has no chat template",
            where=str(folder),
            expected="chat_template.jinja, or chat_template in tokenizer_config.json",
            remedy="Use an instruction-tuned checkpoint, or add a template",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(folder: Path, dtype: Dtype, config: DeepSpeedConfig) -> nn.Module:
    """A causal LM to train: all weights, or LoRA adapters on all linear layers."""
    return _trainable(_causal_lm(folder, dtype), config, "CAUSAL_LM")


def load_frozen_policy(folder: Path, dtype: Dtype) -> nn.Module:
    """A causal LM that only computes: the reference of PPO."""
    return _frozen(_causal_lm(folder, dtype))


def _causal_lm(folder: Path, dtype: Dtype) -> nn.Module:
    with _loading(folder):
        model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], **SAFE)
    return model


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turn what transformers raises for a checkpoint that it cannot or may not load into one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise DataError(
            "cannot load the checkpoint",
            where=folder.name,
            expected="safetensors and a tokenizer of a model that transformers knows",
            got=str(error)[:300],
            remedy="Models that bring code of their own cannot be trained",
        ) from error


class Scorer(nn.Module):
    """A transformer with one linear output a token: reward model (last token) or critic (every token)."""

    def __init__(
        self, folder: Path, dtype: Dtype, config: DeepSpeedConfig | None, *, new_head: bool = False
    ) -> None:
        """Load the weights of a checkpoint; a causal LM's head is replaced by a new output of zeros.

        Args:
            folder: A causal LM, or a scorer saved earlier.
            dtype: Number type of the weights.
            config: How it is trained; None freezes it.
            new_head: Start from zeros also when the checkpoint has a scalar output: a critic takes the
                reward model's network, but its logits are no values.
        """
        super().__init__()
        with _loading(folder):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=1, dtype=DTYPES[dtype], output_loading_info=True, **SAFE
            )
        if new_head or "score.weight" in report["missing_keys"]:
            # Zeros make the first scores 0 (P = 0.5) whatever the width: no seed decides the start.
            with deepspeed.zero.GatheredParameters(model.score.weight, modifier_rank=0):
                nn.init.zeros_(model.score.weight)
        self.model = _frozen(model) if config is None else _trainable(model, config, "SEQ_CLS")

    def forward(
        self, ids_B_S: Tensor, mask_B_S: Tensor | None, positions_B_S: Tensor | None = None
    ) -> Tensor:
        """Scores after every token, B x S; by positions instead of a mask where pieces share a row."""
        inner = _plain(self)
        backbone = getattr(inner, inner.base_model_prefix)
        hidden_B_S_D = backbone(
            ids_B_S, attention_mask=mask_B_S, position_ids=positions_B_S, use_cache=False
        ).last_hidden_state
        scores_B_S: Tensor = inner.score(hidden_B_S_D).squeeze(-1).float()
        return scores_B_S


def last_token_scores(scores_B_S: Tensor, mask_B_S: Tensor) -> Tensor:
    """The score after each row's last token, B; rows are padded on the right."""
    last_B = mask_B_S.sum(dim=1).long() - 1
    return scores_B_S[torch.arange(len(last_B), device=scores_B_S.device), last_B]


def share_frozen(model: nn.Module, owner: nn.Module) -> None:
    """Let the frozen weights of a model with adapters be those of another one, where both hold the same.

    Args:
        model: Made of the same checkpoint as `owner`, and not given to DeepSpeed yet.
        owner: Keeps its weights as they are; those that it trains are not shared.
    """
    theirs = {_plain_name(name): weight for name, weight in owner.named_parameters()}
    for name, weight in model.named_parameters():
        other = theirs.get(_plain_name(name))
        if other is not None and not weight.requires_grad and not other.requires_grad:
            weight.data = other.data


def _plain_name(name: str) -> str:
    """A weight's name without what peft puts around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's full weights as one safetensors file, LoRA merged, whatever ZeRO has split.

    All processes must call it; the first one of each node writes, and the others wait for it.
    """
    with gathered(model):
        if ranks.first_on_node():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: weight.cpu().contiguous() for name, weight in merged_weights(model)}, path)
    ranks.barrier()


def gathered(model: nn.Module) -> AbstractContextManager[None]:
    """Whole weights on every process while it lasts, where ZeRO-3 has split them."""
    whole: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(list(_plain(model).parameters()))
    return whole


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All weights under transformers' names, each where the model has it.

    What LoRA has learnt is added to a copy: added in place and taken off again, it would leave its rounding
    in the frozen weights each time.
    """
    plain = _plain(model)
    adapted = {
        f"{name}.base_layer.weight": module
        for name, module in plain.named_modules()
        if isinstance(module, LoraLayer)
    }
    seen: set[int] = set()
    for name, value in plain.state_dict(keep_vars=True).items():
        # A head that is tied to the embedding is the same tensor under a second name.
        if id(value) in seen or "lora_" in name or ".original_module" in name:
            continue
        seen.add(id(value))
        merged = value.detach()
        if name in adapted:
            learnt = adapted[name].get_delta_weight("default").detach()
            merged = (merged.float() + learnt.float()).to(value.dtype)
        yield name.replace(".base_layer", "").replace(".modules_to_save.default", ""), merged


def save_checkpoint(model: nn.Module, tokenizer: Any, folder: Path) -> Path:
    """Write a whole Hugging Face checkpoint folder: config, weights, tokenizer with chat template.

    All processes must call it; the first one of each node writes.
    """
    plain = _plain(model)
    if ranks.first_on_node():
        plain.config.save_pretrained(folder)
        if getattr(plain, "generation_config", None) is not None:
            plain.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    save_weights(model, folder / WEIGHTS)
    return folder


def stop_at(model: nn.Module, token_id: int) -> None:
    """Have engines end an answer at this token too: it goes into the saved generation config.

    A base model whose tokenizer ends texts by another token learns to end its turns as its chat template
    does; without this nobody would stop there.
    """
    config = _plain(model).generation_config
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if token_id not in known:
        config.eos_token_id = [*(number for number in known if number is not None), token_id]


def _plain(model: nn.Module) -> Any:
    """The transformers model inside, whatever is around it."""
    model = model.model if isinstance(model, Scorer) else model
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def _trainable(model: Any, config: DeepSpeedConfig, task: str) -> nn.Module:
    """Set a model up for training: dropout off, kernels, checkpointing and adapters as configured."""
    if config.liger:
        # Its fused loss would replace the forward pass, which the trainings compute in their own ways.
        apply_liger_kernel(model, {"fused_linear_cross_entropy": False})
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora_rank:
        adapters = peft.LoraConfig(
            task_type=task,
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules="all-linear",
        )
        model = peft.get_peft_model(model, adapters)
    _switch_off_dropout(model)
    # In eval mode transformers recomputes nothing.
    trained: nn.Module = model.train(config.gradient_checkpointing)
    return trained


def _switch_off_dropout(model: nn.Module) -> None:
    """No dropout in train mode either: PPO compares log-probabilities of two passes over the same tokens."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):  # as attention layers keep it
                setattr(module, name, 0.0)


def _frozen(model: Any) -> nn.Module:
    """Switch off gradients and dropout."""
    model.requires_grad_(False)
    frozen: nn.Module = model.eval()
    return frozen
