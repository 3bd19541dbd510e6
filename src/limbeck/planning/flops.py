"""Floating-point operations of a transformer: pure formulas, each with its source.

L is the layers, q heads x head size, V the vocabulary, h the hidden size.
"""

from limbeck.config import DeepSpeedConfig
from limbeck.preflight.memory import Shape


def multiplied(shape: Shape, *, head: bool) -> int:
    """Weights that each token is multiplied with: an embedding is only looked up, an output head is not.

    Args:
        shape: The model.
        head: Whether logits are computed; engines do so for tokens they write, scorers never.
    """
    embedding = shape.vocabulary * shape.hidden
    return shape.parameters - shape.head_parameters - (0 if head else embedding)


def forward(shape: Shape, tokens: float, context: float, *, head: bool) -> float:
    """FLOPs of so many tokens, each of which attends to `context` others in the mean.

    2 a multiplied weight, and 4 L q for each token that is attended to.
    Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1 and table 1, which count half of the context
    alike.
    """
    attention = 4 * shape.layers * shape.heads * shape.head_dim * context
    return tokens * (2 * multiplied(shape, head=head) + attention)


def passes(config: DeepSpeedConfig) -> int:
    """What a trained token costs, in forward passes.

    The backward pass costs two: one for the gradients of activations, one for those of weights, which LoRA
    does without for the frozen ones; recomputed activations cost one more.
    Source: Kaplan et al. 2020, section 2.1; Chen et al. 2016 (arXiv 1604.06174), section 4.
    """
    return 1 + (1 if config.lora_rank else 2) + (1 if config.gradient_checkpointing else 0)
