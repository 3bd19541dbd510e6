"""The `shards` component."""

from kfp import dsl

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def shards(num_shards: int, for_each: list[str] = []) -> list[int]:
    """Count the shards of a loop, so that their number can be chosen when a run starts.

    Args:
        num_shards: How many tasks share the prompts, 1 to 10000.
        for_each: Models with as many shards each: for `evaluate`, which then is given the same `models`.

    Returns:
        The shards to loop over: 0 to num_shards - 1, or to as many for each model.
    """
    from limbeck import tasks

    return tasks.shards(num_shards=num_shards, for_each=for_each)
