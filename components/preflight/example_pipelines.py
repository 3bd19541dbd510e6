"""`preflight`: nothing starts before all was checked, and each task gets what was asked for it."""

from typing import Any

from kfp import dsl

from limbeck.components import preflight, prepare


@dsl.pipeline(name="example-preflight")
def example(work_uri: str, data: str, resources: dict[str, Any] = {}, config: dict[str, Any] = {}) -> None:
    """Check, then prepare a data set."""
    checked = preflight(
        work_uri=work_uri,
        stages=["prepare"],
        prompts=data,
        resources=resources,
        config=config,
    )
    checked.set_caching_options(enable_caching=False)  # it looks at the world, not at its inputs
    prepared = prepare(data=data, work_uri=work_uri, config=config).after(checked)
    prepared.set_cpu_limit(checked.outputs["prepare_cpu"])
    prepared.set_memory_limit(checked.outputs["prepare_memory"])
