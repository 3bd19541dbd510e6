"""`limbeck compile`, `lint`, `images`, `submit` and `cancel`: compiled pipelines on the way to a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.terminal import one_line_errors
from limbeck.progress import say

Pipeline = Annotated[
    str,
    typer.Argument(help="A pipeline by name (distill, distill_minimal, distill_data, ...) or compiled file."),
]
Arguments = Annotated[
    Path | None, typer.Option("--arguments", help="YAML of the pipeline's parameters, such as a run file.")
]
Queue = Annotated[str | None, typer.Option(help="Kueue's LocalQueue for all pods.")]
Kfp = Annotated[str | None, typer.Option(help="Kubeflow Pipelines of the cluster, if older than 2.16: 2.15.")]
Host = Annotated[str | None, typer.Option(help="The API server; else KF_PIPELINES_ENDPOINT.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with a bearer token; else KFP_EXISTING_TOKEN.")]
CookieFile = Annotated[Path | None, typer.Option(help="File with the value of a Cookie header.")]
InCluster = Annotated[bool, typer.Option("--in-cluster", help="As a pod: its service account and address.")]


def compile_pipeline(
    pipeline: Pipeline,
    output: Annotated[Path, typer.Option(help="The file to write.")],
    queue: Queue = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="NAME=REF", help="tools=, generate= or train=; repeatable.")
    ] = None,
    shm: Annotated[str | None, typer.Option(help="Size of /dev/shm of GPU tasks, such as 16Gi.")] = None,
    scratch: Annotated[str | None, typer.Option(help="Size limit of scratch space, such as 200Gi.")] = None,
    retries: Annotated[int | None, typer.Option(help="How often a task is tried again.")] = None,
    kfp: Kfp = None,
) -> None:
    """Write a compiled pipeline with choices that Kubeflow knows no parameters for."""
    with one_line_errors():
        from limbeck.compiled import dump, find, load
        from limbeck.errors import ConfigError
        from limbeck.stamp import stamp

        images = dict(pair.partition("=")[::2] for pair in image or [])
        stamped = stamp(
            load(find(pipeline)), queue=queue, images=images, shm=shm, scratch=scratch, retries=retries,
            kfp=kfp,
        )  # fmt: skip
        try:
            output.write_text(dump(stamped), encoding="utf-8")
        except OSError as error:
            raise ConfigError("cannot write the file", where=f"--output {output}", got=str(error)) from error


def lint(
    pipeline: Pipeline,
    arguments: Arguments = None,
    strict: Annotated[bool, typer.Option("--strict", help="Make warnings errors.")] = False,
) -> None:
    """Say what a cluster would refuse of a compiled pipeline, and what it would regret; 2 on errors."""
    with one_line_errors():
        from limbeck.compiled import find
        from limbeck.lint import lint as check
        from limbeck.parameters import read_parameters

        values = read_parameters(arguments) if arguments else None
        findings = check(find(pipeline), values, strict=strict)
        for finding in findings:
            typer.echo(str(finding))
        errors = sum(finding.severity == "error" for finding in findings)
        say(f"{pipeline}: {errors} errors, {len(findings) - errors} warnings")
        raise typer.Exit(2 if errors else 0)


def images(
    pipelines: Annotated[list[str] | None, typer.Argument(help="Names or compiled files; else all.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List them, one a line; the default.")] = True,
    mirror: Annotated[
        str | None, typer.Option(metavar="REGISTRY", help="Add where each goes in this registry.")
    ] = None,
) -> None:
    """List all images of compiled pipelines, for registries without a way out."""
    with one_line_errors():
        from limbeck.compiled import SHIPPED, find, load, mirrored
        from limbeck.compiled import images as images_of

        names = pipelines or sorted(SHIPPED)
        for image in sorted({image for name in names for image in images_of(load(find(name)))}):
            typer.echo(f"{image} {mirrored(image, mirror)}" if mirror else image)


def submit(
    pipeline: Pipeline,
    experiment: Annotated[str, typer.Option(help="Made if there is none of that name.")],
    name: Annotated[str, typer.Option(help="What the run is called.")],
    values: Annotated[list[str] | None, typer.Argument(metavar="[ARG=VALUE]...")] = None,
    arguments: Arguments = None,
    queue: Queue = None,
    kfp: Kfp = None,
    namespace: Annotated[str, typer.Option(help="The user's, where Kubeflow has several users.")] = "",
    service_account: Annotated[
        str | None, typer.Option(help="Of the run's pods, such as limbeck-runner; else the installation's.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="End as the run ends; 0 only if it succeeded.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait; the run goes on.")] = None,
    cancel_on_interrupt: Annotated[bool, typer.Option(help="Ctrl-C and SIGTERM cancel the run.")] = False,
    host: Host = None,
    token_file: TokenFile = None,
    cookie_file: CookieFile = None,
    in_cluster: InCluster = False,
) -> None:
    """Run a compiled pipeline on a cluster.

    Exit codes: 0 it succeeded, or was started without --wait; 1 it failed; 2 refused before it was sent;
    7 the API server is away or refuses; 8 it was cancelled; 124 --timeout; 130 or 143 stopped.
    """
    with one_line_errors(on_interrupt="stopped"):
        from limbeck import submit as runs
        from limbeck.compiled import find
        from limbeck.kubeflow import connect

        compiled, given = runs.prepare(
            find(pipeline), values or [], arguments_file=arguments, queue=queue, kfp=kfp,
            experiment=experiment, namespace=namespace, name=name,
        )  # fmt: skip
        kubeflow = connect(host=host, token_file=token_file, cookie_file=cookie_file, in_cluster=in_cluster)
        run_id = runs.start(
            kubeflow, compiled, given, experiment=experiment, namespace=namespace, name=name,
            service_account=service_account,
        )  # fmt: skip
        if wait:
            runs.wait(
                kubeflow, run_id, compiled, timeout_seconds=timeout, cancel_on_interrupt=cancel_on_interrupt
            )


def cancel(
    run_id: Annotated[str, typer.Argument(help="The run's id, as `limbeck submit` says it.")],
    host: Host = None,
    token_file: TokenFile = None,
    cookie_file: CookieFile = None,
    in_cluster: InCluster = False,
) -> None:
    """Cancel a run on a cluster."""
    with one_line_errors(on_interrupt="stopped"):
        from limbeck.kubeflow import connect

        connect(host=host, token_file=token_file, cookie_file=cookie_file, in_cluster=in_cluster).terminate(
            run_id
        )
        say(f"cancelling run {run_id}")
