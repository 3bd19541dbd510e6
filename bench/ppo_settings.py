"""What both sides of `bench.ppo` are told alike, and the models that both load. Imports no Limbeck.

Models have random weights, which cost what trained ones cost. Nothing ever ends an answer: the
end-of-sequence token is a number that the models have no logit for, so both sides sample exactly as many
tokens. Every prompt has as many tokens too.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

WANTED = "w9"
"""The word that earns 1 where the reward is a rule."""
SPECIAL = ["<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|> {{ message['content'] }} "
    "{% else %}<|assistant|> {{ message['content'] }} <|end|> {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


@dataclass(frozen=True)
class Setting:
    """One comparison: the shapes of the models, of a batch, and the training."""

    width: int
    inner_width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    batch: int
    """Rollouts of one update round."""
    minibatches: int
    """Updates in one pass over them; their rows are computed at once."""
    epochs: int
    prompt_tokens: int
    completion_tokens: int
    learning_rate: float = 1e-6
    kl_coef: float = 0.05
    group: int = 4
    """Completions of one prompt: RLOO compares them."""
    forward_rows: int = 64
    """TRL's `local_rollout_forward_batch_size`: rows that it samples and scores at once, 64 by default."""
    rule: bool = False
    """Reward: 1 where the completion has the wanted word; else the reward model's probability."""

    @property
    def rows(self) -> int:
        """Rows of one update."""
        return self.batch // self.minibatches


SETTINGS = {
    # The demo's student, batch and lengths (limbeck/demo/run.yaml), all four models of its size.
    "demo": Setting(48, 192, 2, 2, 2, 32, 64, 512, 4, 1, 8, 16, learning_rate=2e-4, kl_coef=0.02),
    # Width, heads and vocabulary of SmolLM2-135M, 4 of its 30 layers.
    "smollm2": Setting(576, 1536, 4, 9, 3, 64, 49152, 8, 2, 1, 32, 32),
    # The same with 2 layers, longer completions, and few rows at once on both sides: what is kept counts.
    "memory": Setting(576, 1536, 2, 9, 3, 64, 49152, 32, 8, 1, 16, 96, forward_rows=4),
    # As cheap as it can be: what a process takes whatever the model is.
    "nothing": Setting(48, 192, 2, 2, 2, 32, 64, 32, 8, 1, 16, 96, forward_rows=4),
    # Both must learn to write a word; the demo's student again.
    "curve": Setting(
        48, 192, 2, 2, 2, 32, 64, 64, 2, 2, 6, 6, learning_rate=2e-3, kl_coef=0.0, rule=True
    ),
}  # fmt: skip


def write_models(setting: Setting, folder: Path) -> None:
    """Write the policy's start (`student`) and the reward model (`reward`), of the same shape."""
    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=setting.vocabulary,
        hidden_size=setting.width,
        intermediate_size=setting.inner_width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        num_key_value_heads=setting.kv_heads,
        head_dim=setting.head_width,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )
    for name, kind in (("student", LlamaForCausalLM), ("reward", LlamaForSequenceClassification)):
        kind(shape).save_pretrained(folder / name)
        _tokenizer(setting.vocabulary).save_pretrained(folder / name)


def questions(setting: Setting, count: int) -> list[str]:
    """User messages of the same length, none with the wanted word."""
    draw = random.Random(1)  # noqa: S311
    words = [f"w{number}" for number in range(10, setting.vocabulary - len(SPECIAL) - 1)]
    return [" ".join(draw.choices(words, k=setting.prompt_tokens - 2)) for _ in range(count)]


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token a word; the tokens that end and pad come after all that the models know."""
    words = ["<unk>", *SPECIAL]
    words += [f"w{number}" for number in range(vocabulary - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE,
        **{name: f"<|{name}|>" for name in ("eos_token", "pad_token")},
    )
