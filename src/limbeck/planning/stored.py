"""What a task leaves in the object store: bytes and objects, before compression."""

from math import ceil
from typing import NamedTuple

from limbeck.config import Config
from limbeck.planning.asked import CHARS_PER_TOKEN, Asked
from limbeck.planning.workload import Model, Work
from limbeck.preflight import memory

ROW_BYTES = 200
"""Ids, numbers and words of a row beside its texts. A guess."""
PROMPT_FILE_ROWS = 100_000
"""Rows in one part of a stage that streams. Source: limbeck.rows."""
TOKENIZER_BYTES = 17 << 20
"""Of the small files of a checkpoint; a guess: Llama 3's tokenizer.json."""
CHECKPOINT_OBJECTS = 8
"""Weights, config, generation config, tokenizer and template, history."""
STATE_BYTES = 12
"""Of a trained weight in a training state: itself and AdamW's two moments, in float32."""
STATE_OBJECTS = 12
"""Of a training state. A guess."""
TASK_OBJECTS = 2
"""Manifest and lease."""
REPORT_BYTES, REPORT_OBJECTS = 2 << 20, 5


class Stored(NamedTuple):
    """What a task leaves."""

    bytes: int
    objects: int


def stored(work: Work, config: Config, asked: Asked, model: Model | None, seconds: float | None) -> Stored:
    """Bytes and objects of all shards of a task.

    Args:
        work: The task.
        config: The settings.
        asked: Lengths of prompts and completions.
        model: What a training starts from; None of other stages.
        seconds: How long a training takes; training states are stored if it lasts longer than
            `checkpoint_seconds`, and `keep_states` of them stay. None: none is counted.
    """
    if model is not None:
        return _checkpoints(work, config, model, seconds)
    if work.stage == "report":
        return Stored(REPORT_BYTES, REPORT_OBJECTS + TASK_OBJECTS)
    prompt = asked.prompt_tokens * CHARS_PER_TOKEN
    if work.sampled and work.stage != "judge":
        row = work.sampled[0].completion_tokens * CHARS_PER_TOKEN
    elif work.stage in ("label", "noise"):
        sampling = config.generate.teacher if "teacher" in work.name else config.generate.student
        row = prompt + asked.completion_tokens(sampling.max_tokens) * CHARS_PER_TOKEN
    else:
        row = prompt if work.stage == "prepare" else 0.0
    streams = work.stage in ("prepare", "label", "noise")
    per_part = PROMPT_FILE_ROWS if streams else config.generate.rows_per_part
    parts = work.num_tasks * ceil(work.rows / work.num_tasks / per_part)
    more = {"prepare": 2, "label": 1, "noise": 2}.get(
        work.stage, 0
    )  # outputs, each with a part and a manifest
    objects = parts + work.num_tasks * TASK_OBJECTS + 2 * more
    return Stored(int(work.rows * (row + ROW_BYTES)), objects)


def _checkpoints(work: Work, config: Config, model: Model, seconds: float | None) -> Stored:
    """The finished model of a training, and its newest states."""
    settings = getattr(config, work.stage).deepspeed
    shape, dtype = model
    size = memory.weights(shape, dtype) + TOKENIZER_BYTES
    states = min(settings.keep_states, int((seconds or 0.0) // settings.checkpoint_seconds))
    learners = 2 if work.stage == "ppo" and config.ppo.algorithm == "ppo" else 1
    trained = settings.lora_rank * shape.linear_widths or shape.parameters
    return Stored(
        size + states * learners * trained * STATE_BYTES,
        CHECKPOINT_OBJECTS + TASK_OBJECTS + states * learners * STATE_OBJECTS,
    )
