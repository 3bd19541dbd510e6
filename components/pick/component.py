"""The `pick` component."""

from kfp import dsl
from kfp.dsl import Input, Model, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def pick(
    checkpoints: Input[list[Model]],
    names: list[str],
    picked: Output[Model],
    metric: str = "",
) -> None:
    """Give on one of several checkpoints.

    Args:
        checkpoints: Manifests to choose from.
        names: The checkpoints that may be picked; those that are not there are passed over.
        metric: The figure in the manifests that decides, the highest wins; empty takes the first of `names`.

    Returns:
        picked: The manifest chosen, unchanged.
    """
    from limbeck import tasks

    tasks.pick(checkpoints=checkpoints, names=names, picked=picked, metric=metric)
