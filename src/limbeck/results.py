"""What results of held-out prompts are called and counted as: of answers, and of verdicts on them."""

from collections.abc import Mapping, Sequence

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


def accuracy_metrics(results: Sequence[EvalResult], config: Config, name: str) -> dict[str, float]:
    """Accuracy, where it is known, and length by decoding; tokens, and of a black box what they cost."""
    metrics = {}
    for decoding in DECODINGS:
        scored = [row.correct for row in results if row.decoding == decoding and row.correct is not None]
        if scored:
            metrics[f"evaluate/accuracy_{decoding}"] = sum(scored) / len(scored)
        asked = [row for row in results if row.decoding == decoding and row.finish_reason != NOT_ASKED]
        if asked:
            metrics[f"evaluate/tokens_{decoding}"] = sum(row.num_tokens for row in asked) / len(asked)
            cut = sum(row.finish_reason == "length" for row in asked)
            metrics[f"evaluate/cut_{decoding}"] = cut / len(asked)
    tokens = Tokens()
    for row in results:
        tokens.add(row)
    return metrics | spent(SPENT, tokens, config.openai if config.asks_a_server(name) else None)


def judge_metrics(results: Sequence[EvalResult], config: Config) -> dict[str, float]:
    """What the verdicts on all answers took."""
    tokens = Tokens(
        prompt=sum(row.num_judge_prompt_tokens for row in results),
        completion=sum(row.num_judge_tokens for row in results),
    )
    return spent(JUDGE_SPENT, tokens, config.openai if config.asks_a_server("teacher") else None)


def say_accuracy(metrics: Mapping[str, float], name: str) -> None:
    """Tell accuracy, where it is known."""
    shown = ", ".join(
        f"{key.split('_')[-1]} {value:.1%}" for key, value in metrics.items() if "accuracy" in key
    )
    say(f"{name}: accuracy {shown or 'unknown: there are no gold answers'}")
