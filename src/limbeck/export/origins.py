"""The student and the teacher that a run began with, and the licences that their own files state.

No licence is guessed: what neither a header of README.md nor a licence file says is not stated.
"""

import re
from collections.abc import Callable
from typing import NamedTuple, get_args

import yaml

from limbeck.checkpoints import identity
from limbeck.config import Dtype
from limbeck.errors import ConfigError, DataError
from limbeck.export.chosen import Chosen, origin_manifest
from limbeck.report.model import Provenance
from limbeck.settings import of_engine
from limbeck.storage import Store

LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md")
README = "README.md"
HEADER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}", re.ASCII)
"""Of a licence, such as apache-2.0."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
MAX_BYTES = 1 << 20


class Asked(NamedTuple):
    """What a person says of a run, since manifests know models and data by hashes alone."""

    student: str = ""
    """Its address in the store, as the run had it; checked against the run. Empty: not stated."""
    teacher: str = ""
    base_model: str = ""
    """The student's name on a hub, for the card's header."""
    datasets: tuple[str, ...] = ()
    """The data sets' names on a hub, for the card's header."""

    def check(self) -> None:
        """Check the names of a hub.

        Raises:
            ConfigError: for what is no such name.
        """
        for name in filter(None, (self.base_model, *self.datasets)):
            if not HUB_NAME.fullmatch(name):
                raise ConfigError(
                    "not the name of a model or data set on a hub",
                    expected="OWNER/NAME",
                    got=repr(name)[:80],
                    remedy="Correct it, or leave it out",
                )


class Origin(NamedTuple):
    """A model that the run began with."""

    address: str
    """Empty when nobody said it."""
    licence: str
    """As the header of its README.md has it; empty when not stated there."""
    licence_file: str
    """The name of its licence file; empty when there is none."""
    licence_text: bytes


NOT_STATED = Origin("", "", "", b"")


def student(store: Store, chosen: Chosen, address: str) -> Origin:
    """The student as it came.

    Raises:
        DataError: when nothing lies there, or the run began with another one.
    """
    if not address:
        return NOT_STATED
    made = chosen.checkpoint
    # The policy began with the warmed-up student, and that one with the student.
    warmed_up = _of(chosen, lambda item: item.content_hash == made.inputs.get("checkpoint"))
    inputs = origin_manifest(store, warmed_up).inputs if warmed_up else made.inputs
    return _origin(store, "student", address, inputs.get("student"), lambda found: {found})


def teacher(store: Store, chosen: Chosen, address: str) -> Origin:
    """The teacher.

    Raises:
        DataError: when nothing lies there, or the run had another one.
    """
    if not address:
        return NOT_STATED
    answered = _of(chosen, lambda item: (item.stage, item.name) == ("generate", "teacher"))
    known = origin_manifest(store, answered).inputs.get("model") if answered else None
    return _origin(
        store,
        "teacher",
        address,
        known,
        lambda found: {
            of_engine(found, dtype, thinking) for dtype in get_args(Dtype) for thinking in (None, False, True)
        },
    )


def _of(chosen: Chosen, wanted: Callable[[Provenance], bool]) -> Provenance | None:
    """What the report was made from and is wanted."""
    origins = chosen.report.provenance if chosen.report else ()
    return next((item for item in origins if wanted(item)), None)


def _origin(
    store: Store, role: str, address: str, known: str | None, hashes: Callable[[str], set[str]]
) -> Origin:
    """A model folder in the store.

    Args:
        store: Where it lies.
        role: What messages call it.
        address: Its address.
        known: The hash that stands for it in the run; None when the run does not tell.
        hashes: What may stand for a folder of this identity in the run.
    """
    base = address.rstrip("/")
    names = {uri.removeprefix(f"{base}/") for uri in store.sizes(base)}
    found = set().union(*(hashes(identity(store, path)) for path in (base, f"{base}/")))
    if not names or known not in found:
        raise DataError(
            f"not the {role} of this run",
            where=address,
            expected=f"the folder that the run was given as `{role}`, unchanged",
            got="no objects" if not names else "another folder, or one that has changed",
            remedy="Give the address as the run had it, or none: then the card does not state it",
        )
    file = next((name for name in LICENCES if name in names), "")
    return Origin(
        address=address,
        licence=licence_of(_read(store, f"{base}/{README}").decode(errors="replace"))
        if README in names
        else "",
        licence_file=file,
        licence_text=_read(store, f"{base}/{file}") if file else b"",
    )


def licence_of(readme: str) -> str:
    """The licence that the YAML header of a model's README.md names; empty when it names none."""
    match = HEADER.match(readme)
    try:
        header = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    if not isinstance(header, dict):
        return ""
    named = [header.get("license"), header.get("license_name")]
    found = [value for value in named if isinstance(value, str) and IDENTIFIER.fullmatch(value)]
    return " ".join(found[:2]) if found[:1] == ["other"] else "".join(found[:1])


def _read(store: Store, uri: str) -> bytes:
    """A small file of text."""
    item = store.stored(uri)
    if item is None or item.bytes > MAX_BYTES:
        raise DataError(
            "a text file that is too large to be one",
            where=uri,
            expected=f"at most {MAX_BYTES >> 20} MiB",
            got=f"{item.bytes >> 20} MiB" if item else "no object",
        )
    return store.read_bytes(uri)
