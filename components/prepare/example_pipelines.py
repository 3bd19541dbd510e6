"""`prepare`: a data set becomes prompts, held-out prompts and gold answers."""

from typing import Any

from kfp import dsl

from limbeck.components import prepare


@dsl.pipeline(name="example-prepare")
def example(work_uri: str, data: str, config: dict[str, Any] = {}) -> None:
    """Split one data set."""
    prepare(data=data, work_uri=work_uri, config=config)
