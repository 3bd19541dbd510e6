"""Checks of model folders by their small files and the headers of their weights; no weight is read."""

import json
import tempfile
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.config import ModelConfig
from limbeck.errors import ConfigError, DataError
from limbeck.keys import NAME_BYTES
from limbeck.models import INDEX, faults
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.memory import Shape
from limbeck.preflight.places import Place
from limbeck.preflight.weights import Tensors, read_tensors

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"
JSON_FILES = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, GENERATION, INDEX)
READ_FILES = (*JSON_FILES, TEMPLATE)
MAX_FILE_BYTES = 64 << 20
Size = Annotated[int, Field(gt=0, lt=1 << 40)]
"""Of one side of a tensor; memory formulas stay within what a float holds."""
NOT_LINEAR = ("embed", "lm_head", "wte", "wpe", "norm")


class Architecture(BaseModel):
    """What preflight reads of a config.json; other keys are the model's business."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: str = ""
    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    num_hidden_layers: Size | None = None
    num_attention_heads: Size | None = None
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    vocab_size: Size | None = None
    max_position_embeddings: Size | None = None
    n_positions: Size | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    eos_token_id: Any = None
    auto_map: Any = None
    quantization_config: Any = None
    tie_word_embeddings: Any = None
    attention_bias: Any = None
    mlp_bias: Any = None
    num_experts: Any = None
    num_local_experts: Any = None
    n_routed_experts: Any = None


@dataclass(frozen=True)
class ModelFacts:
    """What is known of one model. Read by the checks of context, GPUs and vocabulary."""

    place: Place
    architecture: Architecture
    tokenizer: dict[str, Any] | None
    tokenizer_config: dict[str, Any]
    generation: dict[str, Any]
    """Of generation_config.json; empty without one."""
    template: str | None
    """The chat template; None when there is none, or several under names."""
    shape: Shape | None
    """None when the formulas of memory do not know such a model."""
    stored_bytes: int


def check_model(
    place: Place, model: ModelConfig | None, section: str
) -> tuple[ModelFacts | None, list[Finding]]:
    """Check one folder.

    Args:
        place: Where it lies.
        model: How it is loaded; None when the settings could not be read.
        section: `config.teacher` or `config.student`, for messages.

    Returns:
        What is known of it, None when it is no checkpoint; and what was found.
    """
    findings: list[Finding] = []
    with collected(findings):
        sizes = place.sizes()
        files = _small_files(place, sizes)
        contents: dict[str, dict[str, Any]] = {}
        present = [name for name in JSON_FILES if name in files]
        for name in present:
            with collected(findings):
                contents[name] = _json(place, name, files[name])
        if len(contents) < len(present):
            return None, findings
        findings += _folder_faults(place, sizes, files)
        if CONFIG not in contents:
            return None, findings
        architecture = _architecture(place, contents[CONFIG])
        if model is not None:
            findings += _remote_code(place, architecture, model, section)
        tensors = None
        with collected(findings):
            tensors = read_tensors(place, sizes, contents.get(INDEX, {}))
        facts = ModelFacts(
            place=place,
            architecture=architecture,
            tokenizer=contents.get(TOKENIZER),
            tokenizer_config=contents.get(TOKENIZER_CONFIG, {}),
            generation=contents.get(GENERATION, {}),
            template=_template(files, contents.get(TOKENIZER_CONFIG, {})),
            shape=_shape(architecture, tensors) if tensors else None,
            stored_bytes=tensors.stored_bytes if tensors else 0,
        )
        return facts, findings
    return None, findings


def read_architecture(place: Place) -> Architecture:
    """What the config.json of a folder says, whatever else lies there.

    Raises:
        ConfigError: when a local folder is not there.
        DataError: when it holds no config.json, or one that describes no model.
        StorageError: when the store cannot be read.
    """
    size = min(place.size(CONFIG), MAX_FILE_BYTES)
    return _architecture(place, _json(place, CONFIG, place.read(0, size, CONFIG)))


def _small_files(place: Place, sizes: dict[str, int]) -> dict[str, bytes]:
    """The files that say what a model is."""
    for name in READ_FILES:
        if sizes.get(name, 0) > MAX_FILE_BYTES:
            raise DataError(
                f"{name} is too large",
                where=place.path,
                expected=f"at most {MAX_FILE_BYTES >> 20} MiB",
                got=f"{sizes[name] >> 20} MiB",
                remedy="Give the folder that save_pretrained() wrote",
            )
    return {name: place.read(0, sizes[name], name) for name in READ_FILES if name in sizes}


def _template(files: dict[str, bytes], tokenizer_config: dict[str, Any]) -> str | None:
    """The chat template, in its own file or in that of the tokenizer."""
    if TEMPLATE in files:
        return files[TEMPLATE].decode(errors="replace")
    inner = tokenizer_config.get("chat_template")
    return inner if isinstance(inner, str) else None


def _folder_faults(place: Place, sizes: dict[str, int], files: dict[str, bytes]) -> list[Finding]:
    """What stages check when they load it, on a folder of the same names without its large files."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in sizes:
            if len(name.encode()) <= NAME_BYTES:
                (Path(scratch) / name).write_bytes(files.get(name, b""))
        return [Finding(fault) for fault in faults(Path(scratch), place.path)]


def _architecture(place: Place, content: dict[str, Any]) -> Architecture:
    """What config.json says of the model.

    Raises:
        DataError: when it says what no model has, such as a negative size.
    """

    def no_model(expected: str, got: object) -> DataError:
        return DataError(
            "a config.json that describes no model",
            where=place.path,
            expected=expected,
            got=repr(got)[:80],
            remedy="Give the folder that save_pretrained() wrote",
        )

    # Models of several senses keep the language model's sizes apart.
    text = content.get("text_config")
    merged = content | text if isinstance(text, dict) else content
    try:
        found = Architecture.model_validate(merged | {"auto_map": content.get("auto_map")})
    except ValidationError as error:
        first = error.errors()[0]
        raise no_model(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", first["input"]) from error
    if found.head_dim is None and (found.num_attention_heads or 1) > (found.hidden_size or inf):
        raise no_model(
            f"num_attention_heads up to hidden_size, {found.hidden_size}", found.num_attention_heads
        )
    return found


def _remote_code(place: Place, architecture: Architecture, model: ModelConfig, section: str) -> list[Finding]:
    """Code inside a checkpoint runs only where somebody asked for it by name."""
    if model.trust_remote_code:
        error = ConfigError(
            "code inside this checkpoint may run, with the rights and secrets of the stages",
            where=f"{section}.trust_remote_code, {place.path}",
            remedy="Leave it off unless you have read the code",
        )
        return [warning(error)]
    if architecture.auto_map is None:
        return []
    error = ConfigError(
        "a checkpoint with code of its own, which does not run unasked",
        where=f"auto_map in {place.path}/{CONFIG}",
        remedy=f"Remove auto_map if transformers knows the model_type `{architecture.model_type}` itself, or "
        f"read the code and set {section}.trust_remote_code (sampling alone; training never runs it)",
    )
    return [Finding(error)]


def _shape(architecture: Architecture, tensors: Tensors) -> Shape | None:
    """The sizes that memory formulas need, or None when config.json does not name them all."""
    a = architecture
    if not (a.hidden_size and a.num_hidden_layers and a.num_attention_heads and a.vocab_size):
        return None
    linear = [
        shape
        for name, shape in tensors.shapes.items()
        if len(shape) == 2 and not any(part in name for part in NOT_LINEAR)
    ]
    return Shape(
        parameters=sum(prod(shape) for shape in tensors.shapes.values()),
        head_parameters=prod(tensors.shapes.get("lm_head.weight", (0,))),
        linear_widths=sum(sum(shape) for shape in linear),
        stored_bytes=tensors.stored_bytes,
        quantized=a.quantization_config is not None,
        hidden=a.hidden_size,
        intermediate=a.intermediate_size or 4 * a.hidden_size,
        layers=a.num_hidden_layers,
        heads=a.num_attention_heads,
        kv_heads=a.num_key_value_heads or a.num_attention_heads,
        head_dim=a.head_dim or a.hidden_size // a.num_attention_heads,
        vocabulary=a.vocab_size,
        normed_heads=any("q_norm" in name for name in tensors.shapes),
    )


def _json(place: Place, name: str, content: bytes) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: when it is none.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"cannot read {name}",
            where=place.path,
            expected="JSON",
            got=str(error)[:80],
            remedy="Copy it again",
        ) from error
    if not isinstance(found, dict):
        raise DataError(
            f"cannot read {name}",
            where=place.path,
            expected="a JSON object",
            got=type(found).__name__,
            remedy="Give the folder that save_pretrained() wrote",
        )
    return found
