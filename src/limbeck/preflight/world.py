"""What the checks can look at: the object store, if it answers, and the addresses in it."""

from dataclasses import dataclass

from limbeck.errors import ConfigError
from limbeck.preflight import store
from limbeck.preflight.asked import ADDRESSES, Asked
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.places import Place, is_stored
from limbeck.preflight.probes import ProbedStore
from limbeck.storage import split


@dataclass(frozen=True)
class World:
    """What can be looked at."""

    client: ProbedStore | None
    addresses: frozenset[str]
    """Those in the object store that are addresses and can be asked for."""
    checked: list[str]

    def place(self, key: str, path: str) -> Place | None:
        """The file or folder that a parameter names, or None when there is none or it is out of reach."""
        if not path or (is_stored(path) and path not in self.addresses):
            return None
        return Place(key, path, self.client)


def look(asked: Asked, findings: list[Finding]) -> World:
    """The object store, asked at `work_uri`, else at any address in it."""
    named = {name: getattr(asked, name) for name in ADDRESSES} | dict(further_models(asked))
    addresses = []
    for name, address in named.items():
        with collected(findings):
            if address and (is_stored(address) or name == "work_uri"):
                split(address)
                addresses.append(address)
    if store.is_nowhere() and addresses == [asked.work_uri]:
        error = ConfigError(
            "the object store was not checked, as none is named",
            where="AWS_ENDPOINT_URL",
            remedy="Set the AWS_* variables of your cluster's store; `limbeck run` starts one of its own",
        )
        findings.append(warning(error))
        return World(None, frozenset(), [])
    if not addresses:
        return World(None, frozenset(), [])
    opened = store.open_store(addresses[0])
    findings += opened.findings
    if opened.client is None:
        return World(None, frozenset(), [])
    missed: list[Finding] = []
    if opened.has_bucket and addresses[0] == asked.work_uri:
        missed = store.probe(opened.client, asked.work_uri)
    findings += missed
    takes = "parts" if missed else "parts and conditions"  # what is no error is about them, or about deletion
    checked = [f"{asked.work_uri} reads, writes, lists, takes {takes}"]
    return World(opened.client, frozenset(addresses), checked)


def further_models(asked: Asked) -> list[tuple[str, str]]:
    """The further models, each under a name for messages."""
    return [(f"models[{number}]", path) for number, path in enumerate(asked.models)]
