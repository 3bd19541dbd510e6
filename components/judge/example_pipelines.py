"""`judge`: a model judges the answers that it gave before."""

from typing import Any

from kfp import dsl

from limbeck.components import generate, judge, prepare


@dsl.pipeline(name="example-judge")
def example(work_uri: str, data: str, model: str, config: dict[str, Any] = {}) -> None:
    """Answer the prompts of a data set and judge the answers."""
    prompts = prepare(data=data, work_uri=work_uri, config=config).outputs["prompts"]
    answered = generate(prompts=prompts, model=model, work_uri=work_uri, config=config)
    judged = judge(
        prompts=prompts,
        completions=answered.outputs["completions"],
        model=model,
        work_uri=work_uri,
        config=config,
    )
    for task in (answered, judged):
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
