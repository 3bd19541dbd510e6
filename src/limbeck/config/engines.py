"""Settings of what loads models, or asks them over the network: vLLM, DeepSpeed, an OpenAI-like server."""

from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from limbeck.section import Count, Positive, Probability, Section

Dtype = Literal["float32", "bfloat16"]
GPU_STAGES = ("generate", "judge", "sft", "reward", "ppo", "evaluate")
"""Stages whose tasks ask for GPUs."""
WIDTH: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""


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


class TeacherConfig(ModelConfig):
    """How the teacher is loaded, or asked."""

    sampler: Literal["vllm", "openai"] = "vllm"
    """Who runs the teacher: `vllm` here, from its weights; `openai` a server of others that speaks OpenAI's
    API. The parameter `teacher` is then the model's name there, and the section `openai` says where.
    `enable_thinking` goes there as `chat_template_kwargs`, which vLLM's server knows; null sends nothing."""


class OpenAIConfig(Section):
    """The server of a teacher with `sampler: openai`. Its key comes from the variable OPENAI_API_KEY."""

    base_url: str = ""
    """Address of the API, such as https://api.example.com/v1."""
    revision: str = ""
    """Stands for the weights behind the model's name, which no API tells: change it when they have changed,
    and everything is asked anew. A name with a date in it needs none."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 20
    """How many log-probabilities of a verdict's first token are asked for; servers allow 20 at most. 0 where
    a server offers none: verdicts are then read from their text."""
    send_seeds: bool = True
    """Whether each request bears its seed. Few servers promise that the same seed gives the same text."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the longest completion; OpenAI's own newer models know the second name alone."""
    max_concurrent: Annotated[int, Field(ge=1, le=1000)] = 16
    """Requests that one task has open at once; `num_shards` tasks ask side by side."""
    requests_per_minute: Positive | None = None
    """Requests that one task begins in a minute, evenly spread; None sets no limit."""
    tokens_per_minute: Positive | None = None
    """Tokens of one task in a minute, prompts and completions; None sets no limit. A request counts with a
    quarter of its characters and its longest completion, until the server has told what it was."""
    request_seconds: Positive = 120.0
    """How long one try waits for its answer."""
    deadline_seconds: Positive = 600.0
    """How long a request is tried again while the server is busy, broken or away."""
    prompt_price: Annotated[float, Field(ge=0.0)] | None = None
    """Price of a million prompt tokens; with `completion_price` the report tells what each stage has paid."""
    completion_price: Annotated[float, Field(ge=0.0)] | None = None
    """Price of a million completion tokens; also of the report's row `teacher`, unless
    `report.price_per_million_tokens` names it."""
    price_source: str = ""
    """Currency, where the two prices come from and of which day; the report repeats it."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            plain = not (parts.query or parts.fragment or parts.username or parts.password)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and plain
        except ValueError:  # brackets around what is no IPv6 address
            good = False
        if value and not good:
            raise ValueError(
                "must be an address such as https://host/v1, without a key, a password or a query"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_both_prices_and_their_source(self) -> Self:
        if (self.prompt_price is None) != (self.completion_price is None):
            raise ValueError("must hold both `prompt_price` and `completion_price`, or neither")
        if self.prompt_price is not None and not self.price_source:
            raise ValueError("must say in `price_source` where the prices come from")
        return self


class EngineConfig(Section):
    """The vLLM engine of `generate`, `judge`, `ppo` and `evaluate`."""

    max_model_len: Count = 2048
    """Longest prompt plus completion, in tokens; longer prompts are set aside."""
    max_num_seqs: Count = 256
    """How many sequences vLLM decodes at once."""
    gpu_memory_utilization: Probability = 0.9
    """Share of a GPU's memory for weights and cache."""
    kv_cache_mib: Count | None = None
    """Size of the KV cache in MiB instead of a share of a GPU's memory; on CPUs 1024 where it is null."""
    enforce_eager: bool = False
    """Skip graph capture and compilation: a faster start, slower tokens."""
    tensor_parallel_size: Count = 1
    """Over how many GPUs each layer of a model is split; they should share one node's fast links."""
    pipeline_parallel_size: Count = 1
    """Over how many such groups of GPUs the layers of a model are dealt out, for one that fits no group."""
    data_parallel_size: Count = 1
    """How many engines, each with all weights and GPUs of its own, share the rows of one task of `generate`,
    `judge` or `evaluate`. A task uses the product of the three sizes; PPO's engine that of the first two."""
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

    @property
    def gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


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
    """Nodes of one training; more than 1 are the pods of a TrainJob, which only a cluster has
    (docs/multi-node.md)."""
    processes: Count | None = None
    """Training processes on each node; null: one a GPU, one without GPUs. They share each batch."""
    checkpoint_seconds: Positive = 600.0
    """Time between saved training states; a killed trainer loses at most this much, and what it takes to
    upload one. SIGTERM saves one at once."""
    keep_states: Count = 2
    """Newest training states that stay in the object store; an unreadable one gives way to the one before."""
