"""The API of Kubeflow Pipelines, through its own generated client, as far as submitting a run needs it.

The client that kfp ships knows neither time limits nor patience, and follows a redirect to a login page; here
every request ends, and what is asked again is asked again while the server is away.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from limbeck.compiled import Compiled
from limbeck.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from kfp_server_api import Configuration

T = TypeVar("T")

ENDPOINT = "KF_PIPELINES_ENDPOINT"
UI_ENDPOINT = "KF_PIPELINES_UI_ENDPOINT"
TOKEN = "KFP_EXISTING_TOKEN"  # noqa: S105 - the variable that the kfp command reads
CA_FILE = "SSL_CERT_FILE"
IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
IN_CLUSTER_TOKEN = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - a variable, as kfp calls it
IN_CLUSTER_TOKEN_PATH = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a path
FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
BUSY = (408, 429, 500, 502, 503, 504)
LOGIN = (301, 302, 303, 307, 308, 401, 403)
EQUALS = 1  # an operation of the API's filters


@dataclass(frozen=True)
class Patience:
    """How long to wait for what; seconds."""

    request: float = 60.0
    """One request."""
    start: float = 30.0
    """A server that does not answer, or answers 5xx, while a run is made or cancelled."""
    outage: float = 600.0
    """The same while a run is looked at: it goes on meanwhile."""
    first_poll: float = 2.0
    """Between the first two looks at a run; each further one is 1.5 times later."""
    last_poll: float = 30.0
    """The longest time between two looks."""


@dataclass(frozen=True)
class Run:
    """A run as the API server tells it."""

    state: str
    was_canceled: bool
    """Kubeflow 2.17 ends a run that was terminated as FAILED; only the history of its states tells."""
    failures: tuple[tuple[str, str], ...]
    """Name and message of what failed, the first failure first; most servers give no message."""


class Kubeflow:
    """One API server, one identity."""

    def __init__(self, configuration: "Configuration", cookie: str | None, patience: Patience) -> None:
        """Take a configured client; `connect` makes one."""
        import kfp_server_api  # noqa: PLC0415 - only `limbeck[pipelines]` has it

        client = kfp_server_api.ApiClient(configuration, cookie=cookie)
        self.host = str(configuration.host)
        self.patience = patience
        self._experiments = kfp_server_api.ExperimentServiceApi(client)
        self._runs = kfp_server_api.RunServiceApi(client)
        self._models = kfp_server_api

    def experiment(self, name: str, namespace: str) -> str:
        """The id of an experiment, made if there is none of that name."""
        scope = {"namespace": namespace} if namespace else {}

        def find_or_make() -> Any:
            listed = self._ask(
                self._experiments.experiment_service_list_experiments, filter=_named(name), **scope
            )
            if listed.experiments:
                return listed.experiments[0]
            wanted = self._models.V2beta1Experiment(display_name=name, **scope)
            return self._ask(self._experiments.experiment_service_create_experiment, experiment=wanted)

        return self._expect(self.patiently(find_or_make).experiment_id)

    def create_run(
        self,
        experiment: str,
        name: str,
        compiled: Compiled,
        arguments: Mapping[str, Any],
        service_account: str | None = None,
    ) -> str:
        """Start a run, once: after an answer that was lost, a new run of that name is taken as the one.

        Args:
            experiment: Id of its experiment.
            name: What it is called.
            compiled: The pipeline.
            arguments: Values of its parameters.
            service_account: Account of its pods; by default the one that the installation sets.

        Returns:
            The run's id.
        """
        spec: Any = compiled.spec
        if compiled.platform:
            spec = {"pipeline_spec": compiled.spec, "platform_spec": compiled.platform}
        wanted = self._models.V2beta1Run(
            experiment_id=experiment,
            display_name=name,
            pipeline_spec=spec,
            runtime_config=self._models.V2beta1RuntimeConfig(parameters=dict(arguments)),
            service_account=service_account,
        )
        before = self.patiently(lambda: self._run_ids(experiment, name))
        asked = False

        def create() -> str:
            nonlocal asked
            if asked and (new := self._run_ids(experiment, name) - before):
                return new.pop()
            asked = True
            return self._expect(self._ask(self._runs.run_service_create_run, run=wanted).run_id)

        return self.patiently(create)

    def _run_ids(self, experiment: str, name: str) -> set[str]:
        found = self._ask(
            self._runs.run_service_list_runs, experiment_id=experiment, filter=_named(name), page_size=200,
            sort_by="created_at desc",
        )  # fmt: skip
        return {run.run_id for run in found.runs or []}

    def run(self, run_id: str) -> Run:
        """How a run stands."""
        found = self.patiently(
            lambda: self._ask(self._runs.run_service_get_run, run_id=run_id), self.patience.outage
        )
        self._expect(found.run_id)
        unfinished = [entry.state for entry in found.state_history or [] if entry.state not in FINAL]
        details = found.run_details.task_details or [] if found.run_details else []
        failed = [task for task in details if task.state == "FAILED"]
        failed.sort(key=lambda task: str(task.end_time or ""))
        return Run(
            state=found.state or "PENDING",
            was_canceled=found.state == "CANCELED" or unfinished[-1:] == ["CANCELING"],
            failures=tuple((task.display_name or "", _message(task)) for task in failed),
        )

    def terminate(self, run_id: str) -> None:
        """Cancel a run."""
        self.patiently(lambda: self._ask(self._runs.run_service_terminate_run, run_id=run_id))

    def url(self, run_id: str) -> str:
        """The run's page for people."""
        return f"{os.environ.get(UI_ENDPOINT, self.host).rstrip('/')}/#/runs/details/{run_id}"

    def patiently(self, action: Callable[[], T], outage: float | None = None) -> T:
        """Do something again, later and later, while the server is away.

        Args:
            action: What to do; it asks the server.
            outage: Seconds; by default `patience.start`.

        Raises:
            ClusterError: when the server refuses, or is away for too long.
        """
        limit = self.patience.start if outage is None else outage
        start, pause = time.monotonic(), self.patience.first_poll / 4
        while True:
            try:
                return action()
            except _AwayError as away:
                if time.monotonic() - start + pause > limit:
                    raise ClusterError(
                        "the API server is away, or fails",
                        where=self.host,
                        got=str(away),
                        remedy="Check the address, and whether Kubeflow Pipelines is up",
                    ) from away
                time.sleep(pause)
                pause = min(pause * 2, self.patience.last_poll)

    def _ask(self, call: Callable[..., Any], **arguments: Any) -> Any:
        """One request."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - heavy to load for what needs no server

        limits = (min(10.0, self.patience.request), self.patience.request)
        try:
            return call(**arguments, _request_timeout=limits)
        except (HTTPError, UnicodeDecodeError) as error:
            # What urllib3 gives up with says nothing: the reason is within.
            raise _AwayError(type(getattr(error, "reason", None) or error).__name__) from error
        except self._models.ApiException as error:
            if error.status in BUSY:
                raise _AwayError(f"HTTP {error.status} {_said(error.body)}") from error
            raise self._refused(error.status, _said(error.body)) from error

    def _refused(self, status: int, said: str) -> ClusterError:
        remedy = None
        if status in LOGIN:
            remedy = f"Renew the token or cookie (--token-file, --cookie-file, {TOKEN}), or ask for rights"
        return ClusterError(
            "the API server refuses", where=self.host, got=f"HTTP {status} {said}".strip(), remedy=remedy
        )

    def _expect(self, identifier: str | None) -> str:
        """An id; an answer without one comes from a page for people."""
        if not identifier:
            raise ClusterError(
                "no answer of Kubeflow Pipelines",
                where=self.host,
                remedy="Is it the address of the API? A login page answers like this, too",
            )
        return identifier


class _AwayError(Exception):
    """The server did not answer, or not for itself; asking again may help."""


def connect(
    *,
    host: str | None = None,
    token_file: Path | None = None,
    cookie_file: Path | None = None,
    in_cluster: bool = False,
    patience: Patience | None = None,
) -> Kubeflow:
    """Reach an API server; nothing is asked yet.

    Args:
        host: Its address; by default KF_PIPELINES_ENDPOINT.
        token_file: A file with a bearer token, read again for each request: it may be renewed.
        cookie_file: A file with the value of a `Cookie` header.
        in_cluster: Use a pod's own service account and address.
        patience: Other time limits.

    Without any of these, a token in KFP_EXISTING_TOKEN is used.

    Raises:
        ConfigError: when there is no address or one with a password, no readable token, or no client.
    """
    try:
        import kfp_server_api  # noqa: PLC0415
        from urllib3 import Retry  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "the client of Kubeflow Pipelines is not installed", remedy="pip install 'limbeck[pipelines]'"
        ) from error
    if in_cluster:
        host = host or os.environ.get(ENDPOINT) or IN_CLUSTER_HOST
        token_file = token_file or Path(os.environ.get(IN_CLUSTER_TOKEN, IN_CLUSTER_TOKEN_PATH))
    host = host or os.environ.get(ENDPOINT, "")
    if not host:
        raise ConfigError("no API server", where="--host", remedy=f"Give its address, or set {ENDPOINT}")
    for where, address in ((f"--host or {ENDPOINT}", host), (UI_ENDPOINT, os.environ.get(UI_ENDPOINT, ""))):
        if "@" in address:
            raise ConfigError(
                "a password in an address",
                where=where,
                expected="https://host:port",
                remedy=f"Take it out; a credential goes into --token-file, --cookie-file or {TOKEN}",
            )
    configuration = kfp_server_api.Configuration(
        host=(host if "://" in host else f"https://{host}").rstrip("/")
    )
    configuration.ssl_ca_cert = os.environ.get(CA_FILE)
    configuration.retries = Retry(total=0, raise_on_redirect=False)  # asking again is `patiently`'s
    configuration.api_key_prefix["authorization"] = "Bearer"
    if token_file:
        path = token_file
        configuration.api_key["authorization"] = _secret(path)
        configuration.refresh_api_key_hook = lambda now: now.api_key.update(authorization=_secret(path))
    elif not cookie_file and os.environ.get(TOKEN):
        configuration.api_key["authorization"] = _credential(os.environ[TOKEN], TOKEN)
    return Kubeflow(configuration, _secret(cookie_file) if cookie_file else None, patience or Patience())


def _secret(path: Path) -> str:
    """The credential in a file."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the credential", where=str(path), got=type(error).__name__) from error
    return _credential(text, str(path))


def _credential(text: str, where: str) -> str:
    """What can stand in a header: what cannot, the client would repeat in its error."""
    text = text.strip()
    if not (text and text.isascii() and text.isprintable()):
        raise ConfigError("not a credential", where=where, expected="one line of text in ASCII")
    return text


def _named(name: str) -> str:
    predicate = {"operation": EQUALS, "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _message(task: Any) -> str:
    """What a failed task says of itself."""
    errors = [task.error, *(entry.error for entry in reversed(task.state_history or []))]
    return next((" ".join(error.message.split()) for error in errors if error and error.message), "")


def _said(body: object) -> str:
    """The message in the body of a refusal, shortened."""
    try:
        content = json.loads(str(body))
    except ValueError:
        return ""
    said = content.get("message") or content.get("error_message") if isinstance(content, dict) else ""
    return " ".join(str(said or "").split())[:500]
