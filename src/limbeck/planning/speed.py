"""From tokens to FLOPs and seconds: the roofline of a GPU, at shares of its peaks that others have reached.

What is not in it: start of pods and engines, download of weights, padding, hand-over of PPO's weights,
retries, and rows that wait for a free engine.
"""

from limbeck.config import TRAIN_STAGES, Config, EngineConfig
from limbeck.planning.flops import forward
from limbeck.planning.rates import Gpu, Rates
from limbeck.planning.workload import Model, Passed, Sampled, Work, num_processes
from limbeck.preflight import memory


def engine_of(stage: str, config: Config) -> EngineConfig:
    """The engine of a stage: PPO's has a share of its own."""
    if stage != "ppo":
        return config.engine
    own = {"gpu_memory_utilization": config.ppo.gpu_memory_utilization, "data_parallel_size": 1}
    return config.engine.model_copy(update=own)


def sampled_flops(asked: Sampled) -> float:
    """Of all prompt tokens that are computed, without logits, and all completion tokens, with them."""
    if asked.model is None:
        return 0.0
    shape, written = asked.model.shape, asked.requests * asked.completion_tokens
    read = forward(shape, asked.prefilled, asked.prompt_tokens / 2, head=False)
    return read + forward(shape, written, asked.prompt_tokens + asked.completion_tokens / 2, head=True)


def passed_flops(passed: Passed) -> float:
    """Of all passes, forward and backward."""
    once = forward(passed.model.shape, passed.tokens, passed.row_tokens / 2, head=passed.head)
    return once * passed.passes


def flops(work: Work) -> float:
    """Of all shards of a task."""
    return sum(map(sampled_flops, work.sampled)) + sum(map(passed_flops, work.passed))


def seconds(work: Work, config: Config, gpu: Gpu, rates: Rates, gpu_bytes: int) -> float | None:
    """How long one shard of a task takes; None where nothing is known: on CPUs, of a black box."""
    if work.stage in type(rates.cpu_rows_per_second).model_fields:
        return work.rows / float(getattr(rates.cpu_rows_per_second, work.stage))
    if not work.request.gpus or work.is_black_box:
        return None
    engine = engine_of(work.stage, config)
    split = num_processes(work, config) if work.stage in TRAIN_STAGES else 1  # batches stay what they are
    total = 0.0
    for asked in work.sampled:
        took = sampling_seconds(asked, engine, gpu, rates, gpu_bytes, work.num_tasks)
        if took is None:
            return None
        total += took
    for passed in work.passed:
        # Without gradients, a training's models are read as an engine reads prompts.
        share = gpu.training if passed.passes > 1 else gpu.prefill
        total += passed_flops(passed) / (gpu.flops_per_second(passed.model.dtype) * share * split)
    return total


def sampling_seconds(
    asked: Sampled, engine: EngineConfig, gpu: Gpu, rates: Rates, gpu_bytes: int, num_tasks: int = 1
) -> float | None:
    """Prompts at the speed of arithmetic, completions step by step; None if the cache holds no sequence.

    A step reads the weights and the cache of all its sequences once, or multiplies for each of them,
    whichever takes longer; so many sequences run together as the settings and the cache allow.
    Source: Pope et al. 2022 (arXiv 2211.05102), section 2, of a step's memory and compute time.
    """
    if asked.model is None:
        return None
    (shape, dtype), parts = asked.model, engine.gpus
    num_tasks *= engine.data_parallel_size  # each engine has its share of the rows
    peak = gpu.flops_per_second(dtype) * gpu.prefill * parts
    read = forward(shape, asked.prefilled / num_tasks, asked.prompt_tokens / 2, head=False) / peak
    requests = asked.requests / num_tasks
    context = asked.prompt_tokens + asked.completion_tokens / 2
    room = cached(asked.model, engine, gpu_bytes) / context
    together = min(requests, asked.at_once, engine.max_num_seqs, room)
    if together < 1:
        return None if requests >= 1 else read
    cache = together * memory.kv_cache(shape, dtype, 1, engine) * context
    moved = (memory.weights(shape, dtype) // parts + cache) / (gpu.gb_per_second * 1e9 * gpu.decode)
    multiplied = forward(shape, together, context, head=True) / peak
    step = max(moved, multiplied) + rates.step_milliseconds / 1000
    return read + requests * asked.completion_tokens / together * step


def cached(model: Model, engine: EngineConfig, gpu_bytes: int) -> int:
    """Tokens that the KV cache of an engine holds."""
    return memory.sequences(model.shape, model.dtype, engine, gpu_bytes) * engine.max_model_len
