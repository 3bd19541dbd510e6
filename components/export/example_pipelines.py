"""`export`: the policy of an earlier run goes out, and into the registry if its report promoted it."""

from kfp import dsl, kubernetes

from limbeck.components import export, load


@dsl.pipeline(name="example-export")
def example(work_uri: str, report_uri: str, register: str, registry: str, token_secret: str) -> None:
    """Export from a finished report, WORK_URI/report/KEY."""
    run_report = load(uri=report_uri, kind="report").outputs["loaded"]
    exported = export(run_report=run_report, work_uri=work_uri, register=register, registry=registry)
    kubernetes.use_secret_as_env(exported, token_secret, {"token": "LIMBECK_REGISTRY_TOKEN"}, optional=True)
