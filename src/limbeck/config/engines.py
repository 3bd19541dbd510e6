"""Settings of what loads models: vLLM and DeepSpeed."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from limbeck.section import Count, Positive, Probability, Section

Dtype = Literal["float32", "bfloat16"]


class Chat(NamedTuple):
    """How one model is spoken to. Made by `Config.chat`; read by engines, trainings and `preflight`."""

    system_prompt: str | None = None
    enable_thinking: bool | None = None
    strip_thinking: bool = False


class ModelConfig(Section):
    """How one model is loaded. Where it lies is a parameter of the pipeline: `teacher`, `student`."""

    dtype: Dtype = "bfloat16"
    """Number type of the weights while sampling and training; float32 on CPUs."""
    trust_remote_code: bool = False
    """Whether code inside the checkpoint may run while sampling; training never runs it."""
    enable_thinking: bool | None = None
    """What the chat template is told of this name: Qwen3 and SmolLM3 think before they answer if it is true,
    not if false; null: as the template decides. The judge is always told false: its verdict is one token."""


class EngineConfig(Section):
    """The vLLM engine of `generate`, `judge`, `ppo` and `evaluate`."""

    max_model_len: Count = 2048
    """Longest prompt plus completion, in tokens; longer prompts are set aside."""
    max_num_seqs: Count = 256
    """How many sequences vLLM decodes at once."""
    gpu_memory_utilization: Probability = 0.9
    """Share of a GPU's memory for weights and cache."""
    kv_cache_mib: Count | None = None
    """Size of the KV cache in MiB instead of a share of all memory; wanted on CPUs."""
    enforce_eager: bool = False
    """Skip graph capture and compilation: a faster start, slower tokens."""
    tensor_parallel_size: Count = 1
    """Over how many GPUs one model is split."""
    checkpoint_in_memory: bool = False
    """Whether `generate`, `judge`, `evaluate` put the model into memory (/dev/shm), not onto the disk. It
    stays there while the engine runs: the task's memory must hold the weights once more."""
    max_restarts: Annotated[int, Field(ge=0)] = 30
    """How often one attempt of a stage starts a dead or stalled engine again. To find the one row that kills
    it takes about log2(2 x max_num_seqs) + 2 of them; that row is set aside, the rest go on."""
    stall_seconds: Positive = 300.0
    """An engine that has work but samples no token for so long is killed and started again."""
    gpu_memory_gib: Positive | None = None
    """Memory of one GPU in GiB; `preflight` then checks that models and contexts fit."""


class DeepSpeedConfig(Section):
    """How DeepSpeed holds a model that is trained."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What ZeRO splits over processes: nothing, optimizer, + gradients, + weights."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, a third more time."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of LoRA adapters; 0 trains all weights."""
    lora_alpha: Positive = 32.0
    """Scale of the adapters: their output counts alpha / rank."""
    liger: bool = False
    """Use the Triton kernels of the package liger-kernel in the layers of the model: less memory, the same
    losses up to rounding. It must be installed, and wants a GPU."""
    nodes: Count = 1
    """Nodes of one training; this version trains on one, and refuses more."""
    checkpoint_seconds: Positive = 600.0
    """Time between saved training states; a killed trainer loses at most this much, and what it takes to
    upload one. SIGTERM saves one at once."""
    keep_states: Count = 2
    """Newest training states that stay in the object store; an unreadable one gives way to the one before."""
