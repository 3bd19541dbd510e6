"""What results of held-out prompts are called and counted as: of answers, and of verdicts on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from limbeck.config import Config
from limbeck.progress import say
from limbeck.records import NOT_ASKED, Decoding, EvalResult
from limbeck.spending import Tokens, spent

DECODINGS: tuple[Decoding, ...] = ("greedy", "sampled")
SPENT = ("evaluate/prompt_tokens", "evaluate/completion_tokens", "evaluate/cost")
JUDGE_SPENT = ("evaluate/judge_prompt_tokens", "evaluate/judge_completion_tokens", "evaluate/judge_cost")


def result_key(prompt_id: str, decoding: Decoding, index: int) -> str:
    """The key of one answer, or, with index -1, of a prompt that is not asked."""
    return f"prompt {prompt_id}, {decoding}" + (f" {index}" if index >= 0 else "")


def key_of(row: EvalResult) -> str:
    """The key of an answer that is there."""
    return result_key(row.prompt_id, row.decoding, row.sample_index)


@dataclass
class _Counts:
    """What is counted of one decoding."""

    scored: int = 0
    right: int = 0
    asked: int = 0
    tokens: int = 0
    cut: int = 0


@dataclass
class Tally:
    """Counts results as they come; their texts need not be kept."""

    num_results: int = 0
    not_fitting: set[str] = field(default_factory=set)
    """The prompts that are too long to be asked."""
    _by_decoding: dict[Decoding, _Counts] = field(
        default_factory=lambda: {decoding: _Counts() for decoding in DECODINGS}
    )
    _tokens: Tokens = field(default_factory=Tokens)
    _judge_tokens: Tokens = field(default_factory=Tokens)

    @classmethod
    def of(cls, results: Iterable[EvalResult]) -> Self:
        """All of some results."""
        tally = cls()
        for row in results:
            tally.add(row)
        return tally

    def add(self, row: EvalResult) -> None:
        """Count one more."""
        self.num_results += 1
        if row.sample_index < 0:
            self.not_fitting.add(row.prompt_id)
        counts = self._by_decoding[row.decoding]
        if row.correct is not None:
            counts.scored += 1
            counts.right += row.correct
        if row.finish_reason != NOT_ASKED:
            counts.asked += 1
            counts.tokens += row.num_tokens
            counts.cut += row.finish_reason == "length"
        self._tokens.add(row)
        self._judge_tokens.prompt += row.num_judge_prompt_tokens
        self._judge_tokens.completion += row.num_judge_tokens

    def accuracy_metrics(self, config: Config, name: str) -> dict[str, float]:
        """Accuracy, where it is known, and length by decoding; tokens, and of a black box what they cost."""
        metrics = {}
        for decoding, counts in self._by_decoding.items():
            if counts.scored:
                metrics[f"evaluate/accuracy_{decoding}"] = counts.right / counts.scored
            if counts.asked:
                metrics[f"evaluate/tokens_{decoding}"] = counts.tokens / counts.asked
                metrics[f"evaluate/cut_{decoding}"] = counts.cut / counts.asked
        return metrics | spent(SPENT, self._tokens, config.openai if config.asks_a_server(name) else None)

    def judge_metrics(self, config: Config) -> dict[str, float]:
        """What the verdicts on all answers took."""
        server = config.openai if config.asks_a_server("teacher") else None
        return spent(JUDGE_SPENT, self._judge_tokens, server)


def say_accuracy(metrics: Mapping[str, float], name: str) -> None:
    """Tell accuracy, where it is known."""
    shown = ", ".join(
        f"{key.split('_')[-1]} {value:.1%}" for key, value in metrics.items() if "accuracy" in key
    )
    say(f"{name}: accuracy {shown or 'unknown: there are no gold answers'}")
