"""What both sides of `bench.ppo` are told alike, and the models that both load. Imports no Limbeck.

Models have random weights, which cost what trained ones cost. Of even lengths nothing ever ends an answer:
the end-of-sequence token is a number that the models have no logit for, so both sides sample exactly as many
tokens, and every prompt has as many tokens too. Of mixed lengths a prompt has between half of its tokens
and all, and a token ends an answer with much the same probability wherever it is.
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

PROMPTS = 512
"""Of a training, asked again and again: the demo has 500."""
WANTED = "w9"
"""The word that earns 1 where the reward is a rule."""
SPECIAL = ["<|user|>", "<|assistant|>", "<|end|>"]
PAD, END = 0, 3
"""Tokens `<unk>` and `<|end|>`, of mixed lengths."""
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
    pass_rows: int | None = None
    """Limbeck's `micro_batch_size`; None: all rows of an update, as TRL's trainer reads them."""
    packing: bool = False
    """Limbeck's `ppo.packing`."""
    sampler: str = "vllm"
    """Limbeck's `ppo.sampler`."""
    told: bool = False
    """Limbeck's `ppo.old_logprobs: engine`: TRL's PPOTrainer, too, keeps those of its sampling."""
    rule: bool = False
    """Reward: 1 where the completion has the wanted word; else the reward model's probability."""
    mean_tokens: int = 0
    """Of an answer of mixed lengths, were there no longest one; 0: even lengths."""
    lora_rank: int = 0
    """Of policy and critic."""
    dtype: str = "float32"
    """Of Limbeck's models; TRL's have float32 weights and compute in bfloat16 where this says so."""

    @property
    def rows(self) -> int:
        """Rows of one update."""
        return self.batch // self.minibatches


SETTINGS = {
    # The demo's student, batch and lengths (limbeck/demo/run.yaml), all four models of its size.
    "demo": Setting(
        48, 192, 2, 2, 2, 32, 64, 512, 4, 1, 8, 16, learning_rate=2e-4, kl_coef=0.02,
        sampler="transformers", told=True
    ),
    # Width, heads and vocabulary of SmolLM2-135M, 4 of its 30 layers.
    "smollm2": Setting(576, 1536, 4, 9, 3, 64, 49152, 8, 2, 1, 32, 32, told=True),
    # The same of mixed lengths: in a task few answers are as long as the longest that is allowed.
    "demo, mixed": Setting(
        48, 192, 2, 2, 2, 32, 64, 512, 4, 1, 16, 48, mean_tokens=16, packing=True,
        sampler="transformers", told=True
    ),
    "smollm2, mixed": Setting(
        576, 1536, 4, 9, 3, 64, 49152, 16, 2, 1, 32, 96, mean_tokens=32, packing=True, told=True
    ),
    # The lengths of examples/gsm8k.yaml: with SmolLM2's tokenizer its 7,473 prompts have 107 tokens at
    # the mean (90% have at most 137), the worked solutions 94, and `ppo.max_tokens` is 512. Both
    # sides soon learn to end sooner, so here they learn next to nothing.
    "smollm2, gsm8k": Setting(
        576, 1536, 4, 9, 3, 64, 49152, 16, 2, 1, 142, 512, mean_tokens=94, packing=True,
        told=True, learning_rate=1e-9
    ),
    # All of SmolLM2-135M, a batch that a GPU is worth; and at GSM8K's lengths.
    "smollm2-135m": Setting(576, 1536, 30, 9, 3, 64, 49152, 64, 4, 1, 128, 128, told=True),
    "smollm2-135m, gsm8k": Setting(
        576, 1536, 30, 9, 3, 64, 49152, 64, 4, 1, 142, 512, mean_tokens=94, packing=True,
        told=True, learning_rate=1e-9
    ),
    # As `smollm2`, with 2 layers, longer completions, and 8 rows at once on both sides: what is kept counts.
    "memory": Setting(
        576, 1536, 2, 9, 3, 64, 49152, 64, 8, 1, 16, 96, forward_rows=8, pass_rows=8, told=True
    ),
    # As cheap as it can be: what a process takes whatever the model is.
    "nothing": Setting(48, 192, 2, 2, 2, 32, 64, 64, 8, 1, 16, 96, forward_rows=8, pass_rows=8, told=True),
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
        pad_token_id=PAD if setting.mean_tokens else None,
        bos_token_id=None,
        eos_token_id=END if setting.mean_tokens else None,
        num_labels=1,
    )
    student = LlamaForCausalLM(shape)
    if setting.mean_tokens:
        _let_end(student, setting)
    for name, model in (("student", student), ("reward", LlamaForSequenceClassification(shape))):
        model.save_pretrained(folder / name)
        _tokenizer(setting).save_pretrained(folder / name)


@torch.no_grad()
def _let_end(model: LlamaForCausalLM, setting: Setting) -> None:
    """Give the token that ends an answer a logit that hardly depends on what is before it."""
    embedding = model.get_input_embeddings().weight
    embedding += 0.1 * torch.randn(setting.width)  # something that all hidden states then have
    ids = torch.randint(END + 1, setting.vocabulary, (8, setting.prompt_tokens + setting.completion_tokens))
    hidden_N_D = model.model(ids).last_hidden_state.flatten(0, 1)
    common_D = hidden_N_D.mean(dim=0) / hidden_N_D.mean(dim=0).square().sum()
    towards_N = hidden_N_D @ common_D  # about 1
    logits_N_V = hidden_N_D @ embedding.T
    logits_N_V[:, END] = -torch.inf
    others_N = logits_N_V.logsumexp(dim=1)
    low, high = 0.0, 1000.0
    for _ in range(50):
        logit = (low + high) / 2
        too_often = (logit * towards_N - others_N).sigmoid().mean() > 1 / setting.mean_tokens
        low, high = (low, logit) if too_often else (logit, high)
    embedding[END] = logit * common_D


def questions(setting: Setting) -> list[str]:
    """User messages, none with the wanted word."""
    draw = random.Random(1)  # noqa: S311
    words = [f"w{number}" for number in range(10, setting.vocabulary - len(SPECIAL) - 1)]
    longest = setting.prompt_tokens - 2
    shortest = longest // 2 if setting.mean_tokens else longest
    return [" ".join(draw.choices(words, k=draw.randint(shortest, longest))) for _ in range(PROMPTS)]


def _tokenizer(setting: Setting) -> PreTrainedTokenizerFast:
    """One token a word; of even lengths the tokens that end and pad come after all that the models know."""
    words = ["<unk>", *SPECIAL]
    words += [f"w{number}" for number in range(setting.vocabulary - len(words))]
    named = {"eos_token": words[END], "pad_token": words[PAD]}
    if not setting.mean_tokens:
        named = {name: f"<|{name}|>" for name in named}
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE,
        **named,
    )
