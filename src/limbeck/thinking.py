"""The part of a completion in which a reasoning model thinks, before it answers."""

OPEN, CLOSE = "<think>", "</think>"
"""Source: the chat templates of Qwen3, DeepSeek-R1 and SmolLM3."""


def without_thinking(text: str) -> str:
    """A completion without its thinking.

    Some templates open the thinking in the prompt, so the completion holds its end alone. Thinking that was
    cut off has no answer after it: nothing is left then.
    """
    return text.rpartition(CLOSE)[2].partition(OPEN)[0].strip()
