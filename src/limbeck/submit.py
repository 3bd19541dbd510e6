"""`limbeck submit`: start a run on a cluster, and end as the run ends.

Exit codes: 0 the run succeeded (or was started, without waiting), 1 it failed, 2 refused before anything was
sent, 7 the API server is away or refuses, 8 the run was cancelled, 124 it did not end in time, 130 or 143
this command was stopped.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.apiserver import Finding, run_refusals
from limbeck.compiled import Compiled, Document
from limbeck.errors import CanceledError, ConfigError, LimbeckError, TimeLimitError
from limbeck.kubeflow import FINAL, Kubeflow, Run
from limbeck.lint import inspect, inspect_arguments, together
from limbeck.parameters import read_parameters
from limbeck.progress import say
from limbeck.run_file import RunFile
from limbeck.section import parse as parse_section
from limbeck.stamp import stamp

NO_REGISTRY = "registry.invalid/"
"""Where the committed pipelines name their images; no such host can be (RFC 2606)."""


def prepare(
    path: Path,
    given: Sequence[str] = (),
    *,
    arguments_file: Path | None = None,
    queue: str | None = None,
    kfp: str | None = None,
    experiment: str,
    namespace: str = "",
    name: str,
) -> tuple[Compiled, dict[str, Any]]:
    """Read and check all that is sent.

    Args:
        path: The compiled pipeline.
        given: `ARG=VALUE`; a value is JSON unless the parameter is a string. They win over the file.
        arguments_file: YAML with arguments, such as a run file.
        queue: Kueue's LocalQueue for this run.
        kfp: The version of Kubeflow Pipelines, where it is an old one.
        experiment: Name of the experiment.
        namespace: The user's namespace; empty where Kubeflow has one user.
        name: Name of the run.

    Returns:
        The pipeline and the arguments.

    Raises:
        ConfigError: when there are errors; all findings have been printed by then.
    """
    compiled, findings = inspect(path)
    findings += run_refusals(experiment=experiment, namespace=namespace, name=name)
    arguments = read_parameters(arguments_file) if arguments_file else {}
    if compiled is not None:
        arguments |= parse(given, compiled.parameters)
        findings += [*_placeholders(compiled), *inspect_arguments(compiled, arguments)]
        if not _errors(findings):
            findings += _misfits(compiled, arguments)
    for finding in together(findings):
        say(str(finding))
    if compiled is None or _errors(findings):
        raise ConfigError(f"not submitted: {_errors(findings)} errors", where=str(path))
    return stamp(compiled, queue=queue, kfp=kfp), arguments


def _errors(findings: Sequence[Finding]) -> int:
    return sum(finding.severity == "error" for finding in findings)


def _misfits(compiled: Compiled, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """Values that no stage could use; `preflight` would find them too, in the cluster."""
    if not compiled.preflight:
        return  # somebody else's pipeline: its parameters may mean other things
    known = {name: value for name, value in arguments.items() if name in RunFile.model_fields}
    try:
        parse_section(RunFile, known, "the arguments")
    except ConfigError as error:
        yield Finding("error", "arguments", str(error), "`limbeck init` explains every parameter")


def _placeholders(compiled: Compiled) -> Iterator[Finding]:
    """Images that only stand for those that somebody builds: a run would wait for them for ever."""
    for image in sorted({container["image"] for container in compiled.containers.values()}):
        if image.startswith(NO_REGISTRY):
            what = "an image that no registry has: it stands for yours"
            yield Finding("error", f"image {image}", what, "`limbeck compile --image`, see docs/images.md")


def parse(given: Sequence[str], declared: Mapping[str, Document]) -> dict[str, Any]:
    """Arguments from the command line.

    Args:
        given: `ARG=VALUE` each.
        declared: The pipeline's parameters: strings are taken as they are, all else is JSON.

    Raises:
        ConfigError: for what has no `=` or is not JSON; values are not repeated.
    """
    arguments: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        kind = declared.get(name, {}).get("parameterType", "STRING")
        if not equals or not name:
            raise ConfigError("not an argument", where=name[:40], expected="ARG=VALUE")
        try:
            arguments[name] = value if kind == "STRING" else json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                "the value is not JSON",
                where=f"argument {name}",
                expected=f"a {kind}",
                remedy=f"Quote it for the shell: '{name}=...'",
            ) from error
    return arguments


def start(
    kubeflow: Kubeflow,
    compiled: Compiled,
    arguments: Mapping[str, Any],
    *,
    experiment: str,
    namespace: str = "",
    name: str,
    service_account: str | None = None,
) -> str:
    """Start a run and say its id and page.

    Returns:
        The run's id.
    """
    run_id = kubeflow.create_run(
        kubeflow.experiment(experiment, namespace), name, compiled, arguments, service_account
    )
    say(f"run {run_id}")
    say(kubeflow.url(run_id))
    return run_id


def wait(
    kubeflow: Kubeflow,
    run_id: str,
    compiled: Compiled,
    *,
    timeout_seconds: float | None = None,
    cancel_on_interrupt: bool = False,
) -> None:
    """Follow a run until it has succeeded.

    Args:
        kubeflow: Where it runs.
        run_id: The run.
        compiled: The pipeline, for the names of its tasks.
        timeout_seconds: When to stop waiting; the run goes on.
        cancel_on_interrupt: Whether Ctrl-C, and SIGTERM where the caller makes a SystemExit of it, cancel
            the run; else they leave it running.

    Raises:
        LimbeckError: when the run failed, with the task that failed first.
        CanceledError: when it was cancelled.
        TimeLimitError: when it did not end in time.
        ClusterError: when the server is away for too long; the run goes on.
    """
    try:
        run = _follow(kubeflow, run_id, timeout_seconds)
    except (KeyboardInterrupt, SystemExit):
        if not cancel_on_interrupt:
            _goes_on(kubeflow, run_id)
            raise
        say(f"cancelling run {run_id}")
        kubeflow.terminate(run_id)
        raise
    except LimbeckError:
        _goes_on(kubeflow, run_id)
        raise
    if run.was_canceled:
        raise CanceledError("the run was cancelled", where=f"run {run_id}")
    if run.state != "SUCCEEDED":
        task, message = blame(run, compiled)
        raise LimbeckError(
            f"the run {run.state.lower()}",
            where=f"task {task}" if task else f"run {run_id}",
            got=message or "no message from Kubeflow",
            remedy=f"Its log is at {kubeflow.url(run_id)}",
        )


def _follow(kubeflow: Kubeflow, run_id: str, timeout_seconds: float | None) -> Run:
    """Look at a run until it ends."""
    begin, pause, shown, canceling = time.monotonic(), kubeflow.patience.first_poll, "", False
    while True:
        run = kubeflow.run(run_id)
        canceling = canceling or run.state == "CANCELING"
        if run.state != shown:
            shown = run.state
            say(f"run {run_id}: {shown.lower()}")
        if run.state in FINAL:
            canceled = run.state != "SUCCEEDED" and (canceling or run.was_canceled)
            return replace(run, was_canceled=canceled)
        left = float("inf") if timeout_seconds is None else begin + timeout_seconds - time.monotonic()
        if left <= 0:
            raise TimeLimitError(
                "the run did not end in time", where=f"run {run_id}", expected=f"{timeout_seconds:g} s"
            )
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, kubeflow.patience.last_poll)


def blame(run: Run, compiled: Compiled) -> tuple[str, str]:
    """The task that failed first, and its message; both empty where the server names none.

    Kubeflow lists every node of Argo's graph: the task, its driver, each attempt, and all that is around
    them. Those that are tasks of the pipeline have its keys as names.
    """
    titles = {
        key: task.get("taskInfo", {}).get("name", key)
        for key, task, component in compiled.tasks()
        if "executorLabel" in component
    }
    named = [(name.removesuffix("-driver"), message) for name, message in run.failures]
    message = next((message for _, message in named if message), "")
    for key, own in named:
        if key in titles:
            return titles[key], own or message
    return (named[0][0] if named else ""), message


def _goes_on(kubeflow: Kubeflow, run_id: str) -> None:
    say(f"run {run_id} goes on; `limbeck cancel {run_id}` cancels it; {kubeflow.url(run_id)}")
