"""Makes the demo's two checkpoints: a teacher that is half right, and a smaller, weaker student.

Pre-training uses problems that the pipeline never asks, and stops at a measured sampled accuracy while
the model still errs. The teacher also learns to judge, from its own wrong solutions and the same ones
mended, until its verdicts rank well, but not perfectly. This module is the only one of the demo that
imports torch; each checkpoint can be made in a process of its own.

Shapes: B sequences, T tokens, N predicted tokens.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from limbeck.demo import task
from limbeck.errors import EngineError
from limbeck.metrics import auc

Role = Literal["teacher", "student"]

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
VOCABULARY = {word: index for index, word in enumerate((PAD, UNKNOWN, USER, ASSISTANT, END, *task.WORDS))}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|> {% generation %}{{ message['content'] }} <|end|>{% endgeneration %} "
    "{% else %}<|user|> {{ message['content'] }} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """What distinguishes the two models."""

    width: int
    num_layers: int
    accuracy: float
    """Pre-training stops at this accuracy, sampled at temperature 1 on fresh problems."""
    judge_auc: float | None = None
    """From that accuracy on, judging is learned up to this AUC on fresh solutions of its own; None: never."""


RECIPES: dict[Role, Recipe] = {
    # A verdict needs a third layer: find the previous sum, add and compare, gather what was found.
    "teacher": Recipe(width=64, num_layers=3, accuracy=0.44, judge_auc=0.80),
    "student": Recipe(width=48, num_layers=2, accuracy=0.20),
}
LEARNING_RATE = 2e-3
SETTLING_RATE = 6e-4
"""The rate while verdicts are good enough and the accuracy is not yet."""
WARMUP_STEPS = 100
CHECK_EVERY = 25
CHECK_PROBLEMS = 384
MAX_STEPS = 2500
"""Twice what most seeds take."""
SOLVE_ROWS = 64
"""Worked solutions in a batch while the accuracy is too low."""
SOLVE_ROWS_WHEN_GOOD = 16
"""The same once it is reached: they keep the skill of solving and improve it little."""
WRONG_ROWS = 16
"""The model's own wrong solutions in a batch while judging is learned; as many mended ones go with them."""
NO_TARGET = -100
"""The class that cross-entropy leaves out."""


@dataclass(frozen=True)
class Row:
    """One training sequence. `targets` are what is to follow its last words, one target a word."""

    words: list[str]
    targets: list[str]


@dataclass(frozen=True)
class Attempt:
    """What the model answered to a problem, without the end token."""

    problem: task.Problem
    solution: str

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.solution.endswith(f"= {self.problem.answer}")


def make_checkpoint(role: Role, seed: int, folder: Path, progress: Callable[[str], None]) -> float:
    """Pre-train one model and write it, with its tokenizer, as a Hugging Face checkpoint.

    Args:
        role: Which recipe to follow.
        seed: The run's seed; decides weights, problems and which problems are left out.
        folder: Where the checkpoint is written; made if missing.
        progress: Is told one line now and then.

    Returns:
        Its accuracy at temperature 1, on problems that it was not trained on.

    Raises:
        EngineError: when the model does not reach its targets in `MAX_STEPS`; nothing is written then.
    """
    rng = random.Random(f"limbeck demo {role} {seed}")  # noqa: S311
    torch.manual_seed(rng.randrange(2**31))
    reserved = task.make_split(seed).keys
    recipe = RECIPES[role]
    model = _build(recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    wrong: deque[Attempt] = deque(maxlen=1500)
    # Means of two measurements, so that a lucky one does not stop the training.
    accuracies, verdict_aucs = deque([0.0, 0.0], maxlen=2), deque([0.0, 0.0], maxlen=2)
    accuracy, verdict_auc, judging = 0.0, 0.0, False
    for step in range(1, MAX_STEPS + 1):
        rows = _solve_rows(rng, reserved, SOLVE_ROWS if accuracy < recipe.accuracy else SOLVE_ROWS_WHEN_GOOD)
        if judging:
            rows += _verdict_rows(rng, wrong)
        settling = recipe.judge_auc is not None and verdict_auc >= recipe.judge_auc
        rate = SETTLING_RATE if settling else LEARNING_RATE
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / WARMUP_STEPS)
        optimizer.zero_grad()
        _loss(model, rows).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % CHECK_EVERY:
            continue

        attempts = _attempts(model, [task.draw_problem(rng, reserved) for _ in range(CHECK_PROBLEMS)])
        accuracies.append(sum(attempt.right for attempt in attempts) / CHECK_PROBLEMS)
        accuracy = fmean(accuracies)
        if recipe.judge_auc is not None:
            wrong += [attempt for attempt in attempts if not attempt.right]
            verdict_aucs.append(_verdict_auc(model, attempts) if judging else 0.0)
            verdict_auc = fmean(verdict_aucs)
            judging = judging or accuracy >= recipe.accuracy
        state = f"{accuracy:.0%} right" + (f", judge AUC {verdict_auc:.2f}" if judging else "")
        if step % (4 * CHECK_EVERY) == 0:
            progress(f"{role}: step {step}, {state}")
        if accuracy >= recipe.accuracy and verdict_auc >= (recipe.judge_auc or 0.0):
            model.save_pretrained(folder)
            build_tokenizer().save_pretrained(folder)
            progress(f"{role}: {model.num_parameters():,} parameters, {step} steps, {state}")
            return accuracy
    raise EngineError(
        f"the demo's {role} did not learn enough in {MAX_STEPS} steps",
        where=f"pre-training with seed {seed}",
        expected=f"{recipe.accuracy:.0%} right"
        + (f" and judge AUC {recipe.judge_auc:.2f}" if recipe.judge_auc else ""),
        got=state,
        remedy="Choose another seed",
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, with the chat template; text is read and written back unchanged."""
    words = Tokenizer(WordLevel(VOCABULARY, unk_token=UNKNOWN))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=USER,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[ASSISTANT],
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _build(recipe: Recipe) -> Any:
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.width,
        intermediate_size=4 * recipe.width,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention takes
        max_position_embeddings=64,
        # Tied and not too small: sums are learned several times sooner than with separate embeddings.
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=VOCABULARY[PAD],
        bos_token_id=VOCABULARY[USER],
        eos_token_id=VOCABULARY[END],
    )
    return LlamaForCausalLM(config)


def _asked(user_text: str) -> list[str]:
    return [USER, *user_text.split(), ASSISTANT]


def _judged(attempt: Attempt) -> list[str]:
    prompt = attempt.problem.prompt
    return _asked(task.JUDGE_TEMPLATE.format(prompt=prompt, completion=attempt.solution))


def _solve_rows(rng: random.Random, reserved: Set[task.Key], count: int) -> list[Row]:
    rows = []
    for _ in range(count):
        problem = task.draw_problem(rng, reserved)
        learned = problem.work_out(rng).split()
        rows.append(Row(_asked(problem.prompt) + learned, [*learned, END]))
    return rows


def _verdict_rows(rng: random.Random, wrong: Sequence[Attempt]) -> list[Row]:
    """Wrong solutions, and each of them mended: pairs that are equal up to the first mistake.

    From the first mistake on, a wrong solution is followed by "no" in place of the next word at each of its
    words. So a verdict is learned where the mistake is seen, and the last word only has to gather them.
    """
    rows = []
    for attempt in rng.choices(wrong, k=WRONG_ROWS):
        solution = attempt.solution.split()
        mistake = attempt.problem.first_mistake(attempt.solution)
        mended = attempt.problem.work_out(rng, solution[:mistake])
        words = _judged(Attempt(attempt.problem, mended))
        rows.append(Row(words, [*words[-len(mended.split()) - 2 :], task.YES]))
        words = _judged(attempt)
        rows.append(Row(words, [task.NO] * (len(solution[mistake:]) + 2)))
    return rows


def _tensors(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and targets, both B T; target t is the token that is to follow token t."""
    ids_B_T = torch.full((len(rows), max(len(row.words) for row in rows)), VOCABULARY[PAD])
    targets_B_T = torch.full_like(ids_B_T, NO_TARGET)
    for index, row in enumerate(rows):
        end = len(row.words)
        ids_B_T[index, :end] = torch.tensor([VOCABULARY[word] for word in row.words])
        targets_B_T[index, end - len(row.targets) : end] = torch.tensor([VOCABULARY[w] for w in row.targets])
    return ids_B_T, targets_B_T


def _loss(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Cross-entropy, the sum of three means: words, last verdicts, verdicts on the way to them."""
    ids_B_T, targets_B_T = _tensors(rows)
    logits_B_T_V = model(input_ids=ids_B_T, use_cache=False).logits
    losses_B_T = cross_entropy(logits_B_T_V.mT, targets_B_T, ignore_index=NO_TARGET, reduction="none")
    verdict_B_T = (targets_B_T == VOCABULARY[task.YES]) | (targets_B_T == VOCABULARY[task.NO])
    last_B_T = ids_B_T == VOCABULARY[ASSISTANT]
    word_B_T = (targets_B_T != NO_TARGET) & ~verdict_B_T
    groups = (word_B_T, verdict_B_T & last_B_T, verdict_B_T & ~last_B_T)
    return torch.stack([losses_B_T[group].mean() for group in groups if bool(group.any())]).sum()


@torch.inference_mode()
def _attempts(model: Any, problems: Sequence[task.Problem]) -> list[Attempt]:
    """One solution of each problem at temperature 1; without those that did not come to an end."""
    words = list(VOCABULARY)
    prompts = [[VOCABULARY[word] for word in _asked(problem.prompt)] for problem in problems]
    width = max(map(len, prompts))
    ids_B_T = torch.tensor([[VOCABULARY[PAD]] * (width - len(ids)) + ids for ids in prompts])
    output_B_T = model.generate(
        input_ids=ids_B_T,
        attention_mask=(ids_B_T != VOCABULARY[PAD]).long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=task.MAX_COMPLETION_TOKENS,
    )
    attempts = []
    for problem, ids in zip(problems, output_B_T[:, width:].tolist(), strict=True):
        said = [words[index] for index in ids]
        if END in said:
            attempts.append(Attempt(problem, " ".join(said[: said.index(END)])))
    return attempts


@torch.inference_mode()
def _verdict_auc(model: Any, attempts: Sequence[Attempt]) -> float:
    """How well the verdicts on attempts rank the right ones above the wrong ones."""
    ids_B_T, targets_B_T = _tensors([Row(_judged(attempt), [task.YES]) for attempt in attempts])
    logits_B_V = model(input_ids=ids_B_T, use_cache=False).logits[targets_B_T != NO_TARGET]
    scores_B = logits_B_V[:, VOCABULARY[task.YES]] - logits_B_V[:, VOCABULARY[task.NO]]
    return auc(scores_B.double().numpy(), np.array([float(attempt.right) for attempt in attempts]))
