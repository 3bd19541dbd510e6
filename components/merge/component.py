"""The `merge` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def merge(
    shards: Input[list[Dataset]],
    merged: Output[Dataset],
    metrics: Output[Metrics],
    config: dict[str, Any] = {},
) -> None:
    """Make one manifest of what the shards of `generate`, `judge` or `evaluate` have made.

    It is checked that each shard is there once, that all have the same inputs and settings, and that no part
    of the rows is missing or there twice. The result is that of one task, whatever the number of shards.

    Args:
        shards: Manifests of all shards of one stage; of one task that did all, it is given on.
        config: Settings of all stages; this one reads `generate.max_bad_fraction` and, for `evaluate`, what
            that reads.

    Returns:
        merged: Manifest of all rows.
        metrics: Of all rows: tokens and, of `evaluate`, accuracy by decoding.
    """
    from limbeck import tasks

    tasks.merge(shards=shards, config=config, merged=merged, metrics=metrics)
