"""`export`: the policy of an earlier run goes out, and into the registry if its report promoted it."""

from kfp import dsl

from limbeck.components import export, load


@dsl.pipeline(name="example-export")
def example(work_uri: str, report_uri: str, register: str, registry: str) -> None:
    """Export from a finished report, WORK_URI/report/KEY."""
    run_report = load(uri=report_uri, kind="report").outputs["loaded"]
    export(run_report=run_report, work_uri=work_uri, register=register, registry=registry)
