"""Checks of tokenizers: ids within the model, one vocabulary where two models share tokens, verdict words."""

import json
from typing import Any

from limbeck.config import JudgeConfig
from limbeck.errors import ConfigError, DataError
from limbeck.preflight.findings import Finding, collected
from limbeck.preflight.models import TOKENIZER, ModelFacts

# Settings of one call that a tokenizer may have been saved with; they change no token.
OF_ONE_CALL = ("truncation", "padding")


def check_ids(facts: ModelFacts) -> list[Finding]:
    """Every token has a row in the embedding."""
    size = facts.architecture.vocab_size
    largest = max(_ids(facts.tokenizer or {}), default=-1)
    if size is None or largest < size:
        return []
    error = DataError(
        "the tokenizer has tokens that the model has no embedding for",
        where=facts.place.path,
        expected=f"ids below {size} (vocab_size of config.json)",
        got=str(largest),
        remedy="Give model and tokenizer of the same origin, or resize the embedding and save both",
    )
    return [Finding(error)]


def _ids(tokenizer: dict[str, Any]) -> list[int]:
    """The ids of a tokenizer.json; its vocabulary is a map, or a list in id order."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids: list[Any] = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if isinstance(vocabulary, list):
        ids = [len(vocabulary) - 1]
    added = tokenizer.get("added_tokens")
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return [number for number in ids if isinstance(number, int)]


def check_critic(student: ModelFacts, teacher: ModelFacts) -> list[Finding]:
    """A critic that starts from a reward model of the teacher's kind values the student's tokens.

    What `ppo` finds hours later (`_check_critic` of limbeck.stages.ppo), found here.
    """
    ours, theirs = (_same_part(facts.tokenizer) for facts in (student, teacher))
    if ours is None or theirs is None or ours == theirs:
        return []
    error = ConfigError(
        "the critic cannot start from the reward model",
        where="config.ppo.value_init",
        expected=f"the same {TOKENIZER} in student and teacher, as reward.init is `teacher`",
        got=f"different ones in {student.place.path} and {teacher.place.path}",
        remedy="Set ppo.value_init: student, or reward.init: student",
    )
    return [Finding(error)]


def _same_part(tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """What makes tokens of a text."""
    if tokenizer is None:
        return None
    return {key: value for key, value in tokenizer.items() if key not in OF_ONE_CALL}


def can_read(facts: ModelFacts) -> bool:
    """Whether the tokenizer can be tried here: the package may be missing, the file too."""
    try:
        import tokenizers  # noqa: F401, PLC0415 - optional
    except ImportError:
        return False
    return facts.tokenizer is not None


def check_tokenizer(facts: ModelFacts) -> list[Finding]:
    """The tokenizer can be loaded, as far as that can be tried here."""
    findings: list[Finding] = []
    if can_read(facts):
        with collected(findings):
            _read(facts)
    return findings


def _read(facts: ModelFacts) -> Any:
    """The tokenizer, as the package makes it.

    Raises:
        DataError: when its file is damaged.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - optional

    try:
        return Tokenizer.from_str(json.dumps(facts.tokenizer))
    except Exception as fault:
        if type(fault) is not Exception:
            raise
        # The package has no class of its own: every fault of a file is the bare one.
        raise DataError(
            f"cannot read {TOKENIZER}",
            where=facts.place.path,
            got=str(fault)[:200],
            remedy="Write it again with tokenizer.save_pretrained()",
        ) from fault


def check_words(teacher: ModelFacts, judge: JudgeConfig) -> list[Finding]:
    """The judge's two words begin with tokens that tell them apart.

    As `VllmSampler.p_yes` takes them: each word as is, capitalised and after a space; shared tokens tell
    nothing.
    """
    try:
        tokenizer = _read(teacher)
    except DataError as damaged:
        return [Finding(damaged)]
    unknown = teacher.tokenizer_config.get("unk_token")
    unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
    unknown_id = tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None

    def first_tokens(word: str) -> set[int]:
        forms = {word, word.capitalize(), f" {word}", f" {word.capitalize()}"}
        encoded = [tokenizer.encode(form, add_special_tokens=False).ids for form in forms]
        return {ids[0] for ids in encoded if ids and ids[0] != unknown_id}

    yes, no = first_tokens(judge.yes), first_tokens(judge.no)
    if yes - no and no - yes:
        return []
    error = ConfigError(
        "the verdict words begin with the same token",
        where=f"config.judge.yes, config.judge.no for {teacher.place.path}",
        expected="two words that the teacher's tokenizer tells apart",
        got=f"{judge.yes!r}, {judge.no!r}",
        remedy="Choose other words",
    )
    return [Finding(error)]
