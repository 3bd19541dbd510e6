"""The `preflight` component."""

from typing import Any

from kfp import dsl

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def preflight(work_uri: str, config: dict[str, Any], num_shards: int) -> list[int]:
    """Check settings, object store and both models before anything costs time.

    Fails within seconds and in one line when a setting is unknown, the store refuses to be written,
    or a model folder lacks weights, tokenizer or chat template.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        config: Settings of all stages, as under `config` in a run file.
        num_shards: Into how many tasks generating and judging are split.

    Returns:
        The shards to loop over: 0 to num_shards - 1.
    """
    from limbeck import tasks

    return tasks.preflight(work_uri=work_uri, config=config, num_shards=num_shards)
