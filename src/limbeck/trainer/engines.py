"""A DeepSpeed engine around a model, the same on a CPU and on GPUs."""

import os
import socket
import warnings
from typing import Any

import deepspeed
import torch
from torch import nn
from transformers.utils import is_liger_kernel_available

from limbeck.config import DeepSpeedConfig, Dtype
from limbeck.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def start_process(seed: int, config: DeepSpeedConfig) -> None:
    """Join (or, alone, be) the process group, and seed torch. Call once, before any trainer is built.

    Raises:
        ConfigError: when several nodes are asked for and this is none of them, or kernels that are not there.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if config.nodes > 1 and alone:
        raise ConfigError(
            "several nodes, of which this is none",
            where="deepspeed.nodes",
            expected="1, or the pods of a TrainJob",
            got=str(config.nodes),
            remedy="Set it to 1, or run the pipeline on a cluster",
        )
    if config.liger and not (torch.cuda.is_available() and is_liger_kernel_available()):
        raise ConfigError(
            "Liger's kernels are not available",
            where="deepspeed.liger",
            expected="a GPU, and the package liger-kernel",
            got="a GPU without the package" if torch.cuda.is_available() else "no GPU",
            remedy="Set it to false, or install the package in the image of the trainings",
        )
    # Whatever DeepSpeed or transformers might load with torch is read as tensors and plain values.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Its shared-memory collectives would be compiled for a minute; the losses are the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if alone:  # DeepSpeed asks for these even where vLLM has made a process group before it
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    if not torch.distributed.is_initialized():
        if alone:  # not a port that a parent or an earlier group still holds
            os.environ["MASTER_PORT"] = str(_free_port())
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    torch.manual_seed(seed)


def device() -> torch.device:
    """Where this process computes."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def deepspeed_json(
    config: DeepSpeedConfig, dtype: Dtype, *, micro_batch: int, accumulation: int, max_grad_norm: float
) -> dict[str, Any]:
    """The DeepSpeed configuration.

    It names no optimizer: DeepSpeed's own would be compiled at run time, torch's AdamW is not.
    """
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


def wrap(
    model: nn.Module,
    config: DeepSpeedConfig,
    dtype: Dtype,
    *,
    learning_rate: float,
    micro_batch: int,
    accumulation: int = 1,
    max_grad_norm: float = 1.0,
) -> Any:
    """Give a model to DeepSpeed with torch's fused AdamW over its trainable parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # One pass over weights and moments, with no copy of either: the same numbers up to rounding.
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=True)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_json(
            config, dtype, micro_batch=micro_batch, accumulation=accumulation, max_grad_norm=max_grad_norm
        ),
    )
    keep_gradients(engine)
    return engine


def keep_gradients(engine: Any) -> None:
    """Leave gradients where they are if there is nobody to add them with, and no ZeRO that lays them out.

    DeepSpeed would copy them all into a bucket and back.
    """
    if engine.zero_optimization_stage() == 0 and torch.distributed.get_world_size() == 1:
        engine.enable_backward_allreduce = False


def set_learning_rate(engine: Any, learning_rate: float) -> None:
    """Set the rate of the coming updates."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def advanced(scheduler: Any, steps: int) -> Any:
    """A schedule of learning rates as it is after so many updates, which an earlier attempt made."""
    with warnings.catch_warnings(action="ignore"):  # torch misses the updates
        for _ in range(steps):
            scheduler.step()
    return scheduler


def _free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
