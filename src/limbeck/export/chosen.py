"""Which checkpoint goes out, and whether the run's report promoted it."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from limbeck.errors import DataError, GateError
from limbeck.manifest import MANIFEST, Manifest, parse
from limbeck.report.decision import POLICY
from limbeck.report.model import Provenance, RunReport
from limbeck.storage import Store

REPORT = "report.json"
TRAINED = ("sft", "ppo", "load")
"""The stages whose outputs in a report are checkpoints of the student."""


class Chosen(NamedTuple):
    """A checkpoint, and what is known of it."""

    checkpoint: Manifest
    report: RunReport | None
    """None where the checkpoint was named itself: then nothing is known of its quality."""
    source: Manifest
    """The report's manifest, else the checkpoint's own."""

    @property
    def promoted(self) -> bool:
        """Whether the report decided to promote just this one."""
        decision = self.report.decision if self.report else None
        return decision is not None and decision.promote and decision.policy == self.checkpoint.name

    @property
    def row(self) -> str:
        """What the report's tables call it: the picked one of PPO is there as `policy` too."""
        names = {row.name for row in self.report.rows} if self.report else set()
        picked = self.report.decision.policy if self.report else None
        return POLICY if self.checkpoint.name == picked and POLICY in names else self.checkpoint.name

    def check(self, *, even_if_not_promoted: bool, registering: bool) -> None:
        """Stop what was not promoted.

        Raises:
            GateError: when it may not go out, or not into a registry.
        """
        if self.promoted or (even_if_not_promoted and not registering):
            return
        decision = self.report.decision if self.report else None
        raise GateError(
            f"{self.checkpoint.name} was not promoted" + (", so it is not registered" if registering else ""),
            where=self.source.uri,
            got=f"{decision.outcome}: {decision.reason}" if decision else "a checkpoint without a report",
            remedy="Only a promoted policy is registered"
            if registering
            else "Look at the report; --even-if-not-promoted (even_if_not_promoted) exports it all the same",
        )


def choose(store: Store, source: Manifest, name: str = "") -> Chosen:
    """Find the checkpoint that a report picked, or another one of its run.

    Args:
        store: Where all of it lies.
        source: The manifest of a report, or of a checkpoint.
        name: The checkpoint's own name, such as `sft_selected`; empty: the policy.

    Raises:
        DataError: when the report cannot be read or has no such checkpoint, or the checkpoint has changed.
        StorageError: when something is gone or corrupt.
    """
    if source.kind == "checkpoint" and name in ("", source.name):
        return Chosen(source, None, source)
    if source.kind != "report":
        raise DataError(
            "nothing to export",
            where=source.uri,
            expected="the manifest of a report, or of a checkpoint" + (f" {name}" if name else ""),
            got=f"{source.kind} {source.name}",
            remedy="`limbeck status` shows the addresses",
        )
    report = read_report(store, source)
    origins = {item.name: item for item in report.provenance if item.stage in TRAINED}
    wanted = name or report.decision.policy
    origin = origins.get(wanted or "")
    if origin is None:
        raise DataError(
            "the report has no such checkpoint" if wanted else "the report picked no checkpoint",
            where=source.uri,
            expected=" or ".join(origins) or "a run that trained something",
            got=wanted,
            remedy="Name one of its checkpoints" if origins else "Export from the report of such a run",
        )
    return Chosen(origin_manifest(store, origin), report, source)


def read_report(store: Store, manifest: Manifest) -> RunReport:
    """The report.json of a finished report, checked against its sha256.

    Raises:
        DataError: when it is not there, or of another version of Limbeck.
    """
    item = next((item for item in manifest.objects if item.uri.endswith(f"/{REPORT}")), None)
    if item is None or not item.sha256:
        raise DataError(
            "a report without its figures",
            where=manifest.uri,
            expected=f"{REPORT} with its sha256",
            remedy="Run the stage `report` again",
        )
    with tempfile.TemporaryDirectory() as folder:
        content = store.read_file(item, Path(folder) / REPORT).read_bytes()
    try:
        return RunReport.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            "a report that this version of Limbeck does not read",
            where=item.uri,
            expected=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
            remedy="Run the stage `report` again: the other stages are found finished",
        ) from error


def origin_manifest(store: Store, origin: Provenance) -> Manifest:
    """The manifest of what a report was made from, if it still is what it was.

    Raises:
        DataError: when it is gone, or of another content than the report has seen.
    """
    where = f"{origin.uri}/{MANIFEST}"
    found = parse(store.read_bytes(where), where) if store.exists(where) else None
    if found is None or (found.uri, found.content_hash) != (origin.uri, origin.content_hash):
        raise DataError(
            f"{origin.name} is not what the report was made from",
            where=origin.uri,
            expected=f"content {origin.content_hash}",
            got=f"content {found.content_hash}" if found else f"no {MANIFEST}",
            remedy=f"Run the stages `{origin.stage}` and `report` again",
        )
    return found
