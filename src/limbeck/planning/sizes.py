"""The sizes of a model by its config.json alone; preflight counts the tensors where the weights are there.

h is the hidden size, f the MLP's, q = heads x head size, kv = key-value heads x head size, V the vocabulary.
"""

from limbeck.errors import ConfigError, DataError
from limbeck.models import WEIGHTS
from limbeck.preflight.memory import Shape
from limbeck.preflight.models import Architecture, ModelFacts, read_architecture
from limbeck.preflight.places import Place

QKV_BIASES = ("qwen2",)
"""Kinds whose queries, keys and values have biases without saying so (transformers, models/qwen2)."""
NORMED_HEADS = ("qwen3",)
"""Kinds that normalise queries and keys (transformers, models/qwen3)."""
STORED_WIDTH = 2
"""Bytes of a weight in published checkpoints."""


def read_model(place: Place) -> ModelFacts:
    """What a plan needs to know of the model in a folder.

    Raises:
        ConfigError: when its sizes are not known from config.json.
        DataError: when there is no config.json, or one of no model.
        StorageError: when the store cannot be read.
    """
    architecture = read_architecture(place)
    stored = sum(size for name, size in place.sizes().items() if name.endswith(WEIGHTS))
    shape = shape_of(architecture, stored, place.path)
    return ModelFacts(
        place=place,
        architecture=architecture,
        tokenizer=None,
        tokenizer_config={},
        generation={},
        template=None,
        shape=shape,
        stored_bytes=shape.stored_bytes,
    )


def shape_of(architecture: Architecture, stored_bytes: int, where: str) -> Shape:
    """Count the weights of a dense transformer of the Llama kind.

    A layer has queries h q, keys and values 2 h kv, output q h, the MLP's gate, up and down 3 h f, and two
    norms of h; a model the embedding V h, an output head V h unless it is tied, and a last norm.
    Source: transformers 5.19, models/llama, models/qwen2, models/qwen3 and models/mistral.

    Args:
        architecture: What config.json says.
        stored_bytes: Of the weight files beside it; 0 where there are none.
        where: The folder, for messages.

    Raises:
        ConfigError: for a mixture of experts, which has other weights.
        DataError: when config.json names too few sizes, or weights are quantized and not there.
    """
    a = architecture
    if a.num_experts or a.num_local_experts or a.n_routed_experts:
        raise ConfigError(
            "a mixture of experts cannot be planned",
            where=where,
            expected="a dense model",
            got=a.model_type,
            remedy="Use `limbeck preflight` where its weights are",
        )
    if not (a.hidden_size and a.num_hidden_layers and a.num_attention_heads and a.vocab_size):
        raise DataError(
            "a config.json without the sizes of the model",
            where=where,
            expected="hidden_size, num_hidden_layers, num_attention_heads and vocab_size",
            remedy="Give the folder that save_pretrained() wrote",
        )
    hidden, layers, heads = a.hidden_size, a.num_hidden_layers, a.num_attention_heads
    kv_heads = a.num_key_value_heads or heads
    head_dim = a.head_dim or hidden // heads
    inner, q, kv = a.intermediate_size or 4 * hidden, heads * head_dim, kv_heads * head_dim
    linears = [(hidden, q), (hidden, kv), (hidden, kv), (q, hidden), *[(hidden, inner)] * 3]
    biases = q + 2 * kv if a.attention_bias or a.model_type in QKV_BIASES else 0
    biases += hidden if a.attention_bias else 0
    biases += 2 * inner + hidden if a.mlp_bias else 0
    normed = a.model_type in NORMED_HEADS
    layer = sum(rows * columns for rows, columns in linears) + biases + 2 * hidden + normed * 2 * head_dim
    tied = a.model_type.startswith("gemma") if a.tie_word_embeddings is None else bool(a.tie_word_embeddings)
    embedding = a.vocab_size * hidden
    parameters = layers * layer + embedding * (1 if tied else 2) + hidden
    quantized = a.quantization_config is not None
    if quantized and not stored_bytes:
        raise DataError(
            "a quantized model without its weights",
            where=where,
            expected="safetensors files beside config.json, whose sizes are counted",
            remedy="Give the whole folder",
        )
    return Shape(
        parameters=parameters,
        head_parameters=0 if tied else embedding,
        linear_widths=layers * sum(rows + columns for rows, columns in linears),
        stored_bytes=stored_bytes or parameters * STORED_WIDTH,
        quantized=quantized,
        hidden=hidden,
        intermediate=inner,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=a.vocab_size,
        normed_heads=normed,
    )
