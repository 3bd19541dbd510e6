"""The `prepare` component."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Output

from images.images import TOOLS


@dsl.component(base_image=TOOLS, install_kfp_package=False)
def prepare(
    data: str,
    work_uri: str,
    prompts: Output[Dataset],
    heldout: Output[Dataset],
    gold: Output[Dataset],
    heldout_data: str = "",
    config: dict[str, Any] = {},
) -> None:
    """Read the data set: training prompts, held-out prompts, and gold answers apart from both.

    Prompts are de-duplicated, and training prompts that also occur among the held-out ones are dropped.
    Broken rows are set aside with a reason and counted.

    Args:
        data: Address of the prompts: a file (JSONL, JSON, Parquet, CSV) or a folder of them in the store, or
            `hf://ORG/NAME@COMMIT?config=C&split=S`. Columns `prompt` and, optional, `answer` and `options`
            (`task.kind` choice), or what `prepare.fields` or `prepare.preset` says; may be empty when
            `heldout_data` is given.
        work_uri: Prefix in the object store for all results; the same one finds finished work again.
        heldout_data: The same for held-out prompts; empty holds out a part of `data`.
        config: Settings of all stages; this one reads `prepare` and `seed`.

    Returns:
        prompts: Manifest of the training prompts; they carry no answers.
        heldout: Manifest of the held-out prompts; they carry no answers either.
        gold: Manifest of the known answers, for `evaluate` and `report` alone.
    """
    from limbeck import tasks

    tasks.prepare(
        data=data,
        heldout_data=heldout_data,
        work_uri=work_uri,
        config=config,
        prompts=prompts,
        heldout=heldout,
        gold=gold,
    )
