"""How many prompts a run has and how long its rows are: counted where the data can be read, else said."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from limbeck.config import Config
from limbeck.errors import ConfigError
from limbeck.keys import uploaded_files
from limbeck.preflight.places import is_stored
from limbeck.presets import Aside
from limbeck.questions import Raw, columns, preset_of, question
from limbeck.run_file import RunFile
from limbeck.sources import hub, locate, rows
from limbeck.sources.files import is_data, numbered_rows
from limbeck.storage import Store

CHARS_PER_TOKEN = 4.0
"""Characters of a token of English text. Source: OpenAI's help pages, "What are tokens"."""
TEMPLATE_TOKENS = 30
"""What a chat template adds to a question. A guess; Llama 3.2's with its date is about so long."""
PROMPT_TOKENS = 150
"""A question's tokens where the data was not read. A guess: GSM8K's are shorter, MMLU-Pro's longer."""


@dataclass(frozen=True)
class Given:
    """What the user says of a run that its run file does not. None: it is counted, or assumed."""

    prompts: int | None = None
    heldout: int | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    completion_share: float = 0.5
    """Mean length of a completion as a share of its `max_tokens`; a guess. Above 0 up to 1."""
    accepted_share: float = 0.5
    """Share of the teacher's completions that SFT learns from; a guess. 0 to 1."""


@dataclass(frozen=True)
class Asked:
    """How much is asked, and where that is known from."""

    prompts: int
    """That the models are trained on."""
    heldout: int
    prompt_tokens: float
    """Mean, with template."""
    given: Given
    notes: tuple[str, ...]

    def completion_tokens(self, max_tokens: int) -> float:
        """Mean length of completions that may have so many tokens."""
        if self.given.completion_tokens is not None:
            return min(self.given.completion_tokens, float(max_tokens))
        return max_tokens * self.given.completion_share


def count_asked(run_file: RunFile, given: Given, *, trains: bool) -> Asked:
    """Count what the data sets hold; what was given is not counted.

    Args:
        run_file: Names the data sets and says how they are read.
        given: What the user says.
        trains: Whether the pipeline trains; else all prompts are held out.

    Raises:
        ConfigError: when a number is neither given nor to be counted.
        DataError: when a data set is not what its name says.
        StorageError: when the store cannot be read.
    """
    config, notes = run_file.config, []
    prompts, lengths = given.prompts, []
    if prompts is None and (trains or not run_file.heldout):
        lengths = _lengths(run_file.prompts, "prompts", config)
        prompts = len(lengths)
        notes.append(f"{prompts:,} prompts, counted in {run_file.prompts}; duplicates count")
    elif prompts is not None:
        notes.append(f"{prompts:,} prompts, as given")
    prompts = prompts or 0
    heldout = given.heldout
    if heldout is not None:
        notes.append(f"{heldout:,} held-out prompts, as given")
    elif run_file.heldout:
        held = _lengths(run_file.heldout, "heldout", config)
        heldout = len(held)
        lengths = lengths or held
        notes.append(f"{heldout:,} held-out prompts, counted in {run_file.heldout}")
    elif trains:
        heldout = round(prompts * config.prepare.heldout_fraction)
        prompts -= heldout
        notes.append(f"{heldout:,} of them held out (prepare.heldout_fraction)")
    else:
        heldout = prompts
    if given.prompt_tokens is not None:
        tokens, note = given.prompt_tokens, f"{given.prompt_tokens:g} tokens a prompt, as given"
    else:
        tokens, note = _prompt_tokens(fmean(lengths) if lengths else None, config)
    return Asked(prompts, heldout, tokens, given, (*notes, note, _completions(given)))


def kept(config: Config, prompts: int, heldout: int, characters: float | None) -> Asked:
    """What a run has asked, by what `prepare` has kept of its data.

    Args:
        config: The templates are read.
        prompts: To train on.
        heldout: To measure with.
        characters: Of a typical prompt; None where nobody has told.
    """
    tokens, note = _prompt_tokens(characters, config)
    notes = (f"{prompts:,} prompts and {heldout:,} held-out ones, as the run had them", note)
    return Asked(prompts, heldout, tokens, Given(), (*notes, _completions(Given())))


def _prompt_tokens(characters: float | None, config: Config) -> tuple[float, str]:
    """Tokens of a prompt with its templates, and what is said of them."""
    template = config.task.prompt_template.replace("{prompt}", "") + (config.task.system_prompt or "")
    own = PROMPT_TOKENS if characters is None else characters / CHARS_PER_TOKEN
    tokens = own + len(template) / CHARS_PER_TOKEN + TEMPLATE_TOKENS
    known = f"{PROMPT_TOKENS} assumed" if characters is None else f"{CHARS_PER_TOKEN:g} characters a token"
    return tokens, f"{tokens:.0f} tokens a prompt ({known}, and {tokens - own:.0f} of templates)"


def _completions(given: Given) -> str:
    """What is said of the length of completions."""
    if given.completion_tokens is not None:
        return f"{given.completion_tokens:g} tokens a completion, as given; max_tokens if that is less"
    return f"a completion has {given.completion_share:.0%} of its max_tokens (assumed)"


def _lengths(address: str, side: str, config: Config) -> list[int]:
    """Characters of each usable prompt of a data set.

    Raises:
        ConfigError: when it cannot be counted here.
    """
    if not address or hub.is_hub(address):
        option = "--prompts" if side == "prompts" else "--heldout"
        raise ConfigError(
            f"the number of prompts in `{side}` is not known",
            where=address or f"parameter {side}",
            expected="a local or s3:// data set that can be counted",
            remedy=f"Say it: {option} N",
        )
    preset = preset_of(side, config)
    read = (question(raw, preset, config) for raw in _raw(address, side, columns(preset, config), config))
    return [len(found.prompt) for found in read if not isinstance(found, Aside)]


def _raw(address: str, side: str, wanted: tuple[str, ...], config: Config) -> Iterator[Raw]:
    """All rows of a data set, in the store or on this machine."""
    if is_stored(address):
        store = Store()
        source = locate(address, store, config.prepare)
        yield from (row.value for row in rows(source, store, config.prepare, wanted))
        return
    path = Path(address).expanduser()
    files = [file for file in uploaded_files(path) if is_data(file.name)] if path.is_dir() else [path]
    if not files or not all(file.is_file() and is_data(file.name) for file in files):
        raise ConfigError(
            f"no such data set in `{side}`",
            where=address,
            expected="a file or folder of prompts",
            remedy="Correct the path",
        )
    for file in files:
        yield from (value for _, value in numbered_rows(file, str(file), wanted))
