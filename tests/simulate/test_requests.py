"""What the simulation takes a run to cost is what a real stage asks a real server for, request by request."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from limbeck import checkpoints
from limbeck.manifest import Manifest
from limbeck.stages import generate
from limbeck.storage import CHUNK_BYTES, Store
from simulate import requests
from simulate.requests import Requests
from simulate.run import Outcome, simulate
from simulate.scenario import Protocol, Scenario
from tests.fault_proxy import Answer, FaultProxy, Request, fault_proxy
from tests.simulate import attempt

PAUSE_SECONDS = 2000.0
"""Until a retry: the lease is over by then, as that of a dead process of the same machine is at once."""
NO_REQUESTS = Requests()


class Door:
    """Counts what passes, by kind; renewals apart, which depend on how long a process lives."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.asked = NO_REQUESTS
        self.prompt_reads = 0
        self.renewals = 0
        proxy.pass_on = self.pass_on

    def pass_on(self, request: Request, ask: Callable[[], Answer]) -> Answer:
        address = urlsplit(request.path)
        if unquote(address.path).endswith(".parquet") and "/prompts/" in address.path:
            self.prompt_reads += 1
        elif _is_renewal(request):
            self.renewals += 1
        else:
            query = parse_qs(address.query, keep_blank_values=True)
            kind = "pages" if "list-type" in query else request.method.lower()
            self.asked = self.asked._replace(**{kind: getattr(self.asked, kind) + 1})
        return ask()


def _is_renewal(request: Request) -> bool:
    if request.method != "PUT" or not request.path.endswith("/lease.json"):
        return False
    lease = json.loads(request.body)
    return bool(lease["state"] == "held" and lease["renewals"])


def simulated(kills: Sequence[int], commit_seconds: float, num_shards: int) -> Outcome:
    """The same shards on one GPU that samples a row a second, and lives for so many rows and a half."""
    scenario = Scenario(
        protocol=Protocol(attempt.ROWS_PER_PART, commit_seconds, lease_seconds=600, num_shards=num_shards),
        num_rows=attempt.NUM_ROWS,
        num_gpus=1,
        tokens_per_second=1,
        tokens_per_row=1,
        in_flight=0,
        samples_per_prompt=attempt.SAMPLES,
        pod_seconds=0,
        prompt_seconds=0,
        engine_seconds=0,
        model_bytes=0,
        node_bytes_per_second=1,
        model_gets_per_second=1e9,
        replace_seconds=0,
        retry_seconds=PAUSE_SECONDS,
    )
    # The next GPU is there at once, and lives through the pause before the retry.
    pauses = [0.0, *(PAUSE_SECONDS * 2**number for number in range(len(kills)))]
    return simulate(scenario, [pause + rows + 0.5 for pause, rows in zip(pauses, kills, strict=False)])


CASES: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "one task, unbroken": (1, [(0, 0)]),
    "one task, killed once": (1, [(0, 61), (0, 0)]),
    "one task, killed twice": (1, [(0, 100), (0, 59), (0, 0)]),
    "three shards": (3, [(0, 0), (1, 0), (2, 0)]),
    "three shards, the first one killed": (3, [(0, 33), (1, 0), (2, 0), (0, 0)]),
}


@pytest.mark.parametrize("commit_seconds", [1e-9, 1e9], ids=["rows one by one", "by whole parts"])
@pytest.mark.parametrize(("num_shards", "attempts"), CASES.values(), ids=CASES)
def test_a_run_asks_for_what_the_simulation_says(
    store: Store,
    work_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    num_shards: int,
    attempts: list[tuple[int, int]],
    commit_seconds: float,
) -> None:
    attempt.prompts(store, work_uri)
    with fault_proxy(str(store.endpoint)) as proxy:
        door = Door(proxy)
        attempt.run(proxy.endpoint, work_uri, commit_seconds, num_shards, attempts)
        if num_shards > 1:  # Kubeflow hands over the manifests
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            found = [uri for uri in store.sizes(f"{work_uri}/generate") if uri.endswith("/manifest.json")]
            made = [Manifest.model_validate_json(store.read_bytes(uri)) for uri in found]
            generate.merged(made, attempt.config(commit_seconds), Store())
    kills = [rows for _, rows in attempts if rows]
    outcome = simulated(kills, commit_seconds, num_shards)
    # The manifest of the prompts is handed over by the pipeline; here each attempt reads it.
    handed_over = Requests(get=len(attempts))
    real = Requests(*(one - other for one, other in zip(door.asked, handed_over, strict=True)))
    told, of_prompts = (outcome.traffic.total(place) for place in ("results", "prompts"))
    merging = int(num_shards > 1)
    put, pages = told.put - outcome.num_renewals - merging, told.pages + of_prompts.pages
    assert real == told._replace(put=put, pages=pages)
    assert door.prompt_reads == of_prompts.get == len(attempts)
    assert outcome.num_renewals == num_shards
    assert door.renewals >= outcome.num_renewals + merging
    assert outcome.num_preempted == len(kills)


@pytest.mark.parametrize("num_bytes", [100, CHUNK_BYTES, 2 * CHUNK_BYTES + 1], ids=str)
def test_a_file_goes_up_and_a_model_comes_down_in_as_many_requests(
    store: Store, work_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    (tmp_path / "weights").write_bytes(bytes(num_bytes))
    with fault_proxy(str(store.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        door, client = Door(proxy), Store()
        client.write_file(tmp_path / "weights", f"{work_uri}/model/weights")
        assert door.asked == requests.upload(num_bytes)
        door.asked = NO_REQUESTS
        checkpoints.identity(client, f"{work_uri}/model")
        checkpoints.fetch_base(client, f"{work_uri}/model", tmp_path / "down")
        assert door.asked == requests.model(num_bytes)


def test_listings_come_in_pages(store: Store, work_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        store.write_bytes(f"{work_uri}/part-{number}", b"x")
    with fault_proxy(str(store.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        door, client = Door(proxy), Store()
        assert len(client.sizes(work_uri)) == 3
        assert door.asked == requests.listing(3) == Requests(pages=1)
    assert requests.listing(10_001).pages == 11
