"""The `cleanup` component."""

from typing import Any

from kfp import dsl

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def cleanup(config: dict[str, Any] = {}) -> None:
    """Delete the TrainJobs that a run leaves behind: for the exit handler of a pipeline.

    A run that fails or is cancelled does not end what its launchers have started; this does. Where each
    training is on one node it does nothing.

    Args:
        config: Settings of all stages, as under `config` in a run file.
    """
    from limbeck import tasks

    tasks.cleanup(config=config)
