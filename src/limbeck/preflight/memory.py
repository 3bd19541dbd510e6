"""How much GPU memory the stages take: pure formulas, each with its source. Bytes, unless a name says else.

They hold for dense transformers as `transformers` builds them (Llama, Qwen, Mistral and their like) and one
process. h is the hidden size, f the MLP's, q = heads x head size, kv = key-value heads x head size, S the
tokens of a row, V the vocabulary, w the bytes of a weight.

What is allocated whatever the rows are (weights, master copies, moments, gradients, the KV cache of one
sequence) is `certain`. Activations, workspaces and what CUDA takes are estimates; the whole is `likely`.
docs/preflight.md says what of it was measured.
"""

from dataclasses import dataclass, replace

from limbeck.config import WIDTH, Config, DeepSpeedConfig, Dtype, EngineConfig, RewardConfig, SftConfig

FLOAT = 4
GIB = 1 << 30
CUDA_CONTEXT = GIB
"""CUDA context, cuBLAS and NCCL buffers of one process. A guess."""
REDUCE_BUCKET = 500_000_000
"""Elements of the gradient buffer of ZeRO. Source: DeepSpeed's `reduce_bucket_size`, its default."""
PIECE = 1 << 21
"""Logits at once in float32. Source: the constant of this name in limbeck.trainer.logprobs."""
BATCHED_TOKENS = 16_384
"""Most tokens of one vLLM step. Source: vLLM 0.32, engine/arg_utils.py, `get_batch_defaults`, large GPUs."""
SCORED_TOKENS = 32_768
"""Tokens that a scorer takes at once. Source: the constant of this name in limbeck.trainer.reward."""


@dataclass(frozen=True)
class Shape:
    """What the formulas need to know of a model. Written by `limbeck.preflight.models`."""

    parameters: int
    """Elements of all stored tensors; tied embeddings count once."""
    head_parameters: int
    """Those of an output head that is stored apart; a scorer drops it."""
    linear_widths: int
    """Sum over all linear layers of inputs + outputs: what LoRA adapters grow with."""
    stored_bytes: int
    quantized: bool
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    normed_heads: bool = False
    """Whether queries and keys are normalised, as Qwen3 does."""


@dataclass(frozen=True)
class Need:
    """What a stage takes of one GPU."""

    certain: int
    likely: int
    parts: dict[str, int]
    """What `likely` is made of, for messages."""


def weights(shape: Shape, dtype: Dtype) -> int:
    """Weights in a number type; quantized ones stay as they are stored."""
    return shape.stored_bytes if shape.quantized else shape.parameters * WIDTH[dtype]


def kv_cache(shape: Shape, dtype: Dtype, tokens: int, engine: EngineConfig | None = None) -> int:
    """Keys and values of some tokens on one GPU of an engine: 2 x layers x kv x w a token.

    Source: vLLM 0.32, v1/kv_cache_interface.py, `FullAttentionSpec`; a GPU has at least one head
    (config/model.py, `get_num_kv_heads`).
    """
    engine = engine or EngineConfig()
    heads = max(1, shape.kv_heads // engine.tensor_parallel_size)
    layers = -(-shape.layers // engine.pipeline_parallel_size)
    return 2 * layers * heads * shape.head_dim * WIDTH[dtype] * tokens


def engine_workspace(shape: Shape, dtype: Dtype, engine: EngineConfig) -> int:
    """What a vLLM step needs besides weights and cache, and CUDA itself. An estimate.

    Two residual streams and the MLP's inner rows of a full step; logits of every sequence in float32, three
    times over while sampling.
    """
    tokens = min(BATCHED_TOKENS, engine.max_num_seqs * engine.max_model_len)
    rows = 2 * shape.hidden + 3 * shape.intermediate // engine.tensor_parallel_size
    logits = engine.max_num_seqs * shape.vocabulary * 3 * FLOAT
    return tokens * rows * WIDTH[dtype] + logits + CUDA_CONTEXT


def engine_need(shape: Shape, dtype: Dtype, engine: EngineConfig) -> Need:
    """A vLLM engine with a KV cache for one sequence of `max_model_len`: less does not start."""
    parts = {
        "weights": weights(shape, dtype) // engine.gpus,
        "KV cache of one sequence": kv_cache(shape, dtype, engine.max_model_len, engine),
        "workspace": engine_workspace(shape, dtype, engine),
    }
    if engine.kv_cache_mib:
        parts["KV cache of one sequence"] = max(parts["KV cache of one sequence"], engine.kv_cache_mib << 20)
    total = sum(parts.values())
    return Need(total - parts["workspace"], total, parts)


def sequences(shape: Shape, dtype: Dtype, engine: EngineConfig, gpu_bytes: int) -> int:
    """How many sequences of `max_model_len` the KV cache holds at once."""
    each = kv_cache(shape, dtype, engine.max_model_len, engine)
    if engine.kv_cache_mib:
        return (engine.kv_cache_mib << 20) // each
    taken = weights(shape, dtype) // engine.gpus + engine_workspace(shape, dtype, engine)
    return max(0, int(gpu_bytes * engine.gpu_memory_utilization) - taken) // each


@dataclass(frozen=True)
class Training:
    """What one model in training takes."""

    states: int
    """Weights, float32 master copies and AdamW's two moments: always there."""
    gradients: int
    """While the backward pass runs."""
    bucket: int
    """The buffer that gradients are reduced in, while the backward pass runs."""
    step: int
    """While the optimizer steps: float32 gradients and AdamW's temporary."""


def training(
    parameters: int, linear_widths: int, dtype: Dtype, config: DeepSpeedConfig, num_gpus: int = 1
) -> Training:
    """One GPU's part of a model that DeepSpeed trains with torch's AdamW.

    A trained weight takes w for itself and 8 for the moments; ZeRO and bfloat16 add a float32 master copy.
    Over several GPUs, one process on each, ZeRO 1 splits copy and moments, 2 the gradients too, 3 the weights
    too; on one it splits nothing.
    Source: Rajbhandari et al. 2019 (arXiv 1910.02054), section 3.1 and figure 1; DeepSpeed 0.19.8,
    runtime/zero: stage_1_and_2.py (master copy also for float32; bucket in the backward pass), stage3.py
    (gradients and bucket stay); torch 2.13, optim/adam.py (`exp_avg_sq_sqrt`).
    LoRA: r x (inputs + outputs) of each linear layer. Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1.
    """
    width, zero = WIDTH[dtype], config.zero_stage
    trained = config.lora_rank * linear_widths if config.lora_rank else parameters
    frozen = parameters if config.lora_rank else 0
    master = 0 if zero == 0 and dtype == "float32" else FLOAT
    stepped = trained // num_gpus if zero >= 1 else trained
    gradients = (trained // num_gpus if zero >= 2 else trained) * width
    weights = (frozen + trained) // (num_gpus if zero == 3 else 1) * width
    bucket = REDUCE_BUCKET * width if zero else 0
    return Training(
        states=weights + stepped * (master + 2 * FLOAT) + (gradients + bucket if zero == 3 else 0),
        gradients=0 if zero == 3 else gradients,
        bucket=0 if zero == 3 else bucket,
        step=stepped * 2 * FLOAT,
    )


def layer_activations(shape: Shape, dtype: Dtype, row_tokens: int) -> int:
    """What one layer keeps of one token for the backward pass.

    Two norms keep their input in float32 and their output twice; attention keeps query, key (repeated to
    the queries' heads), value, output and the mask's row; the MLP keeps gate, up, activation and product.
    Source: the saved tensors of transformers 5.19 (models/llama, models/qwen3) with sdpa attention, counted
    in tests/preflight/test_memory_measured.py; without an attention matrix, as Korthikanti et al. 2022
    (arXiv 2205.05198), section 4.1, count it for other blocks.
    """
    width = WIDTH[dtype]
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * ((FLOAT + 2 * width) * shape.hidden + FLOAT)
    attention = width * (4 * queries + row_tokens) + FLOAT * shape.heads
    head_norms = (FLOAT + width) * (queries + keys) + FLOAT * (shape.heads + shape.kv_heads)
    return norms + attention + shape.normed_heads * head_norms + 4 * width * shape.intermediate


def activations(shape: Shape, dtype: Dtype, rows: int, row_tokens: int, *, checkpointing: bool) -> int:
    """What all layers keep of a batch; with checkpointing their inputs, and one layer at a time in full.

    Source: Chen et al. 2016 (arXiv 1604.06174), section 4, with one segment a layer.
    """
    layer = layer_activations(shape, dtype, row_tokens)
    each = shape.layers * shape.hidden * WIDTH[dtype] + layer if checkpointing else shape.layers * layer
    return rows * row_tokens * each


def policy_logits(tokens: int, vocabulary: int, dtype: Dtype) -> int:
    """Logits of completion tokens, whose place their gradient takes, and two pieces in float32 on the way.

    Source: limbeck.trainer.logprobs, the backward pass.
    """
    logits = tokens * vocabulary
    return logits * WIDTH[dtype] + 2 * min(logits, PIECE) * FLOAT


def scoring(shape: Shape, dtype: Dtype, row_tokens: int) -> int:
    """The widest layer while a scorer reads rows without gradients. An estimate."""
    tokens = max(SCORED_TOKENS, row_tokens)
    return tokens * (2 * shape.hidden + 3 * shape.intermediate) * WIDTH[dtype]


def generating(shape: Shape, dtype: Dtype, engine: EngineConfig) -> int:
    """A batch of answers by transformers: a cache of the longest ones, and logits of one step.

    These count in the model's number type, three times over in float32 and twice in float64 (`_draw` in
    limbeck.trainer.transformers_sampler). An estimate.
    """
    logits = engine.max_num_seqs * shape.vocabulary * (WIDTH[dtype] + 3 * FLOAT + 2 * 2 * FLOAT)
    return kv_cache(shape, dtype, engine.max_num_seqs * engine.max_model_len) + logits


def _need(
    fixed: dict[str, int], trained: Training, passing: dict[str, int], estimates: dict[str, int] | None = None
) -> Need:
    """States, and on top the larger of what the backward pass and the optimizer's step need."""
    states = sum(fixed.values()) + trained.states
    backward = {"gradients": trained.gradients, **passing, "reduce bucket": trained.bucket}
    peak = backward if sum(backward.values()) > trained.step else {"optimizer step": trained.step}
    parts = {
        **fixed,
        "weights and optimizer": trained.states,
        **peak,
        **(estimates or {"CUDA": CUDA_CONTEXT}),
    }
    return Need(states + max(trained.gradients, trained.step), sum(parts.values()), parts)


def sft_need(shape: Shape, dtype: Dtype, settings: SftConfig, num_gpus: int = 1) -> Need:
    """Training of student or teacher; TRL computes its loss in tiles, so logits do not count."""
    kept = activations(
        shape,
        dtype,
        settings.rows_at_once,
        settings.max_length,
        checkpointing=settings.deepspeed.gradient_checkpointing,
    )
    trained = training(shape.parameters, shape.linear_widths, dtype, settings.deepspeed, num_gpus)
    return _need({}, trained, {"activations": kept})


def reward_need(shape: Shape, dtype: Dtype, settings: RewardConfig, num_gpus: int = 1) -> Need:
    """Training of the reward model: a scorer, with two completions a row where pairs are compared."""
    rows = settings.rows_at_once * (2 if settings.loss == "bradley_terry" else 1)
    kept = activations(
        shape, dtype, rows, settings.max_length, checkpointing=settings.deepspeed.gradient_checkpointing
    )
    parameters = shape.parameters - shape.head_parameters
    trained = training(parameters, shape.linear_widths, dtype, settings.deepspeed, num_gpus)
    return _need({}, trained, {"activations": max(kept, scoring(shape, dtype, settings.max_length))})


def ppo_need(
    student: Shape,
    reward: Shape,
    config: Config,
    gpu_bytes: int,
    *,
    judge: Shape | None = None,
    num_gpus: int = 1,
) -> Need:
    """Policy, reference, reward model, the critic of `ppo`, and what samples beside them, on one GPU.

    Critic and policy learn one after the other, so the larger pass counts. The engine takes its share of
    the whole GPU first (vLLM 0.32, v1/worker/utils.py, `request_memory`) unless its cache has a fixed size;
    so does a second one, of the teacher that is the reward (`judge`), in a process of its own. Of a policy
    that transformers samples from only the weights stay while the models learn.
    No reference is kept where LoRA can be switched off, nor by TRL's trainers where the KL weighs nothing.
    With LoRA, and weights that ZeRO does not split, the critic's are those of the model it starts from.
    """
    settings, engine, dtype = config.ppo, config.engine, config.student.dtype
    rows, row_tokens, tokens = settings.rows_at_once, engine.max_model_len, settings.max_tokens
    has_critic = settings.algorithm == "ppo"
    critic = reward if settings.value_init == "reward" else student
    checkpointing = settings.deepspeed.gradient_checkpointing
    copy = weights(student, dtype)
    by_vllm = settings.sampler == "vllm"
    sampler = (
        _beside(student, dtype, engine, settings.gpu_memory_utilization, gpu_bytes)
        if by_vllm
        else Need(copy, copy, {})
    )
    has_reference = not settings.deepspeed.lora_rank and (has_critic or settings.kl_coef > 0)
    fixed = {
        "engine": sampler.certain,
        "reference": copy if has_reference else 0,
        "reward model": (reward.parameters - reward.head_parameters) * WIDTH[dtype],
    }
    learners = [training(student.parameters, student.linear_widths, dtype, settings.deepspeed, num_gpus)]
    passes = [
        activations(student, dtype, rows, row_tokens, checkpointing=checkpointing)
        + policy_logits(rows * tokens, student.vocabulary, dtype),
        scoring(reward, dtype, config.reward.max_length),
    ]
    if has_critic:
        parameters = critic.parameters - critic.head_parameters
        learner = training(parameters, critic.linear_widths, dtype, settings.deepspeed, num_gpus)
        if settings.deepspeed.lora_rank and settings.deepspeed.zero_stage < 3:
            learner = replace(learner, states=learner.states - parameters * WIDTH[dtype])
        learners.append(learner)
        passes.append(activations(critic, dtype, rows, row_tokens, checkpointing=checkpointing))
    if not by_vllm:
        passes.append(generating(student, dtype, engine))
    trained = Training(
        states=sum(learner.states for learner in learners),
        gradients=max(learner.gradients for learner in learners),
        bucket=max(learner.bucket for learner in learners),
        step=max(learner.step for learner in learners),
    )
    workspace = {"engine's workspace and CUDA": max(sampler.likely - sampler.certain, CUDA_CONTEXT)}
    if judge:
        share = settings.judge_gpu_memory_utilization
        teacher = _beside(judge, config.teacher.dtype, engine, share, gpu_bytes)
        fixed["judge"] = teacher.certain
        workspace["judge's workspace and CUDA"] = teacher.likely - teacher.certain
    return _need(fixed, trained, {"activations and logits": max(passes)}, workspace)


def _beside(shape: Shape, dtype: Dtype, engine: EngineConfig, share: float, gpu_bytes: int) -> Need:
    """A vLLM engine beside models in training; its share of the GPU holds its workspace too."""
    if engine.kv_cache_mib:
        return engine_need(shape, dtype, engine)
    taken = int(share * gpu_bytes)
    return Need(taken, taken, {})
