"""An engine's weights and AdamW's moments in a training state that any number of processes can go on from.

{folder}/{rank}-{part}.safetensors    weight/{name}, exp_avg/{name}, exp_avg_sq/{name}: whole, in float32
{folder}/optimizer.json               how many updates AdamW has made

Whatever ZeRO has split is gathered, parameter by parameter, so the stage and the number of processes may be
others when it is read. The parameters that LoRA leaves frozen are not in it: they come with the base.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.trainer import ranks
from limbeck.trainer.engines import device

MOMENTS = ("exp_avg", "exp_avg_sq")
WEIGHT = "weight"
KINDS = (WEIGHT, *MOMENTS)
OPTIMIZER = "optimizer.json"
PART_BYTES = 1 << 30
"""What one process holds of a state before it writes it: it bounds the memory that a state takes."""


def save_engine(engine: Any, folder: Path) -> None:
    """Write an engine's state: the processes of the first node share the work; all must call it.

    Args:
        engine: A DeepSpeed engine with torch's AdamW, between two updates.
        folder: Made here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _make_moments(engine)
    on_first_node = ranks.rank() < ranks.size_on_node()
    part: dict[str, Tensor] = {}
    num_parts = 0
    for number, item in enumerate(_trained(engine)):
        full = {f"{kind}/{item.name}": _full(engine, item, kind) for kind in KINDS}
        if on_first_node and number % ranks.size_on_node() == ranks.rank_on_node():
            part |= {key: value.detach().cpu().contiguous().clone() for key, value in full.items()}
        if sum(value.nbytes for value in part.values()) >= PART_BYTES:
            save_file(part, folder / f"{ranks.rank():03d}-{num_parts:03d}.safetensors")
            part, num_parts = {}, num_parts + 1
    if part:
        save_file(part, folder / f"{ranks.rank():03d}-{num_parts:03d}.safetensors")
    if ranks.leads():
        steps = {int(state["step"]) for state in engine.basic_optimizer.state.values()}
        (folder / OPTIMIZER).write_text(json.dumps({"steps": max(steps)}))
    ranks.barrier()


def load_engine(engine: Any, folder: Path) -> None:
    """Go on from what `save_engine` wrote; all processes must call it, each reads the files itself."""
    _make_moments(engine)
    steps = json.loads((folder / OPTIMIZER).read_text())["steps"]
    files: list[Any] = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
    places = {key: file for file in files for key in file.keys()}  # noqa: SIM118 - a file is no mapping
    for item in _trained(engine):
        for kind in KINDS:
            key = f"{kind}/{item.name}"
            _set(engine, item, kind, places[key].get_tensor(key))
    for state in engine.basic_optimizer.state.values():
        state["step"].fill_(steps)


class _Trained(NamedTuple):
    """A parameter that learns."""

    name: str
    parameter: nn.Parameter
    """What the forward pass computes with."""
    master: Tensor
    """What AdamW updates, where ZeRO does not split it: the parameter itself, or its copy in float32."""

    @property
    def is_split(self) -> bool:
        """Whether ZeRO keeps what AdamW updates."""
        return hasattr(self.parameter, "ds_id") or hasattr(self.parameter, "_hp_mapping")


def _trained(engine: Any) -> Iterator[_Trained]:
    """The parameters that learn, in the same order on all processes."""
    copies: dict[int, Tensor] = {}
    if hasattr(engine.optimizer, "fp32_groups"):  # bfloat16 without ZeRO
        for own, masters in zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups, strict=True):
            copies |= {id(parameter): master for parameter, master in zip(own, masters, strict=True)}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            yield _Trained(name, parameter, copies.get(id(parameter), parameter))


def _make_moments(engine: Any) -> None:
    """AdamW makes its moments at its first update, and DeepSpeed finds them then; a state needs them before.

    They are the zeros that torch's AdamW would begin with.
    """
    wrapper, optimizer = engine.optimizer, engine.basic_optimizer
    # ZeRO-3 shows torch's optimizer its parameters only while they are updated.
    split = getattr(wrapper, "fp32_partitioned_groups_flat", None)
    for value in split or [value for group in optimizer.param_groups for value in group["params"]]:
        if not optimizer.state[value]:
            moments = {kind: torch.zeros_like(value, requires_grad=False) for kind in MOMENTS}
            # The fused AdamW counts where it computes, the other one on the CPU.
            step = torch.zeros((), device=value.device if optimizer.defaults["fused"] else "cpu")
            optimizer.state[value] = {"step": step, **moments}
    if hasattr(wrapper, "_lazy_init_hp_params_optimizer_state"):  # ZeRO-1 and ZeRO-2
        # It looks after the update of the first group of parameters, when the others have no moments yet.
        wrapper._hp_optimizer_states_linked = False
        wrapper._lazy_init_hp_params_optimizer_state()


def _full(engine: Any, item: _Trained, kind: str) -> Tensor:
    """A parameter in float32, or one of its moments, gathered from all processes."""
    full: Tensor
    if not item.is_split:
        full = item.master if kind == WEIGHT else engine.basic_optimizer.state[item.master][kind]
    elif kind == WEIGHT:
        full = safe_get_full_fp32_param(item.parameter)
    else:
        full = safe_get_full_optimizer_state(item.parameter, kind)
    return full


def _set(engine: Any, item: _Trained, kind: str, value: Tensor) -> None:
    """Set a parameter, or one of its moments, on the processes that hold a part of it."""
    parameter: Any = item.parameter
    value = value.to(device())
    with torch.no_grad():
        if not item.is_split:
            _full(engine, item, kind).copy_(value)
        elif hasattr(parameter, "ds_id"):  # ZeRO-3, whose `safe_set_full` fails where the last part is padded
            part: Tensor = parameter.ds_tensor
            flat = torch.zeros(part.numel() * ranks.size(), device=value.device)
            flat[: value.numel()] = value.flatten()
            mine = flat.chunk(ranks.size())[ranks.rank()]
            if kind == WEIGHT:
                safe_set_local_fp32_param(parameter, mine)
            else:
                safe_set_local_optimizer_state(parameter, mine, kind)
        elif kind == WEIGHT:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, kind)
        if kind == WEIGHT:  # also what the forward pass computes with, in its own number type
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(value)
