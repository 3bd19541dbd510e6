"""The `export` component."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def export(
    run_report: Input[Artifact],
    work_uri: str,
    exported: Output[Model],
    name: str = "",
    student: str = "",
    teacher: str = "",
    base_model: str = "",
    datasets: list[str] = [],
    even_if_not_promoted: bool = False,
    register: str = "",
    registry: str = "",
) -> None:
    """Write a finished policy as a model that others can use, with its card, and register it.

    Merged safetensors, tokenizer, generation_config.json, a model card made from the report, checksums. What
    the report did not promote ends the task with exit code 6, and is never registered.

    Args:
        run_report: Manifest of the report; its policy goes out.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        name: Another checkpoint of the run than the policy, such as `sft_selected`.
        student: URI of the student's folder as the run had it, for its licence; empty leaves it unstated.
        teacher: The same of the teacher.
        base_model: The student's name on a hub, for the card's header.
        datasets: The data sets' names on a hub, for the card's header.
        even_if_not_promoted: Export a checkpoint that the report did not promote.
        register: Name in the Kubeflow Model Registry; empty registers nothing.
        registry: URL of the registry; a token comes from the variable LIMBECK_REGISTRY_TOKEN.

    Returns:
        exported: Manifest of the exported checkpoint.
    """
    from limbeck import tasks

    tasks.export(
        run_report=run_report,
        work_uri=work_uri,
        exported=exported,
        name=name,
        student=student,
        teacher=teacher,
        base_model=base_model,
        datasets=datasets,
        even_if_not_promoted=even_if_not_promoted,
        register=register,
        registry=registry,
    )
