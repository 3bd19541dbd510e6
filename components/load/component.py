"""The `load` component."""

from kfp import dsl
from kfp.dsl import Artifact, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def load(
    uri: str,
    kind: str,
    loaded: Output[Artifact],
    name: str = "sft_selected",
) -> None:
    """Bring what an earlier run made, or a checkpoint that another tool made, into a pipeline.

    Args:
        uri: Prefix of a finished stage, as `limbeck status` shows it; for `checkpoint` and `reward_model`
            also any Hugging Face folder in the object store.
        kind: What lies there: `prompts`, `heldout`, `gold`, `completions`, `judgements`, `labels`,
            `labelled`, `checkpoint`, `reward_model`, `results` or `report`.
        name: What the report calls a checkpoint that has no manifest.

    Returns:
        loaded: Its manifest.
    """
    from limbeck import tasks

    tasks.load(uri=uri, kind=kind, loaded=loaded, name=name)
