"""`limbeck export`: what a run has made, as a model that others can use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.terminal import one_line_errors
from limbeck.cli.work import StoreFolder, opened

if TYPE_CHECKING:
    from limbeck.manifest import Manifest
    from limbeck.storage import Store


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="URI", help="A report's address (WORK_URI/report/KEY), a checkpoint's, or a work_uri."
        ),
    ],
    to: Annotated[str, typer.Option(help="A folder that is not there yet, or s3://BUCKET/PATH.")],
    checkpoint: Annotated[
        str, typer.Option(metavar="NAME", help="Another one than the policy, such as sft_selected.")
    ] = "",
    student: Annotated[
        str,
        typer.Option(help="The student's address in the store, for its licence; checked against the run."),
    ] = "",
    teacher: Annotated[str, typer.Option(help="The same of the teacher.")] = "",
    base_model: Annotated[str, typer.Option(help="The student's name on a hub, for the card.")] = "",
    dataset: Annotated[
        list[str] | None, typer.Option(help="A data set's name on a hub, for the card; repeatable.")
    ] = None,
    even_if_not_promoted: Annotated[
        bool, typer.Option("--even-if-not-promoted", help="Export what the report did not promote.")
    ] = False,
    register: Annotated[
        str, typer.Option(metavar="NAME", help="Register it under this name; only what was promoted.")
    ] = "",
    registry: Annotated[
        str, typer.Option(help="Kubeflow Model Registry; a token comes from LIMBECK_REGISTRY_TOKEN.")
    ] = "",
    store: StoreFolder = None,
) -> None:
    """Write a finished policy as safetensors with tokenizer, model card and checksums.

    Of a report the policy goes out, if it was promoted (exit code 6 if not). The store is the one of the
    AWS_* variables, unless --store is given.
    """
    with one_line_errors(), opened(store) as client:
        from limbeck.errors import ConfigError
        from limbeck.export import Asked, Registry, choose, export_to_folder, export_to_store
        from limbeck.export import register as enter

        asked = Asked(student, teacher, base_model, tuple(dataset or ()))
        asked.check()
        place = Registry(registry, register) if register or registry else None
        is_stored = "://" in to
        if place and not is_stored:
            raise ConfigError(
                "what lies on this machine cannot be registered",
                where=f"--to {to}",
                expected="s3://BUCKET/PATH, which others can reach",
                remedy="Export into the store",
            )
        if place:
            place.check()
        chosen = choose(client, _source(client, source), checkpoint)
        chosen.check(even_if_not_promoted=even_if_not_promoted, registering=place is not None)
        if not is_stored:
            export_to_folder(client, chosen, asked, Path(to))
            return
        made = export_to_store(client, chosen, asked, to.rstrip("/"))
        if place:
            enter(place, made, chosen)


def _source(store: "Store", uri: str) -> "Manifest":
    """The manifest at an address; of a work_uri, its newest finished report."""
    from limbeck.fetch_report import newest_report
    from limbeck.manifest import MANIFEST, parse

    base = uri.rstrip("/").removesuffix(f"/{MANIFEST}")
    where = f"{base}/{MANIFEST}"
    if store.exists(where):
        return parse(store.read_bytes(where), where)
    return newest_report(store, base)[0]
