"""Who may do what: each account has what it uses, no less, and nothing beyond."""

import pytest

from manifests.kustomize import OVERLAYS, Resource
from tests.manifests.built import built, everything, of_kind

# What Kubeflow's driver and launcher (read in 2.15 to 2.17) and Argo's executor ask the API server for.
RUNNER = {
    ("", "configmaps", "kfp-launcher", "get"),
    ("", "secrets", "limbeck-s3", "get"),
    ("", "secrets", "mlpipeline-minio-artifact", "get"),
    ("", "pods", "*", "get"),
    ("argoproj.io", "workflowtaskresults", "*", "create"),
    ("argoproj.io", "workflowtaskresults", "*", "patch"),
}
SUBMITTER = {
    *(("pipelines.kubeflow.org", "runs", "*", verb) for verb in ("create", "get", "list", "terminate")),
    *(("pipelines.kubeflow.org", "experiments", "*", verb) for verb in ("create", "get", "list")),
    *(("pipelines.kubeflow.org", "pipelines", "*", verb) for verb in ("create", "get", "list")),
}
TRAIN_JOBS = {
    *(
        ("trainer.kubeflow.org", "trainjobs", "*", verb)
        for verb in ("create", "list", "watch", "patch", "delete")
    ),
    ("trainer.kubeflow.org", "trainingruntimes", "*", "get"),
    ("", "pods", "*", "list"),
    ("", "pods/log", "*", "get"),
}

Grant = tuple[str, str, str, str]


def grants(role: Resource) -> set[Grant]:
    """Group, resource, name (`*` for any) and verb of all that a role allows."""
    return {
        (group, kind, name, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


def granted(overlay: str, account: str) -> set[Grant]:
    """What an account may do by all its bindings."""
    roles = of_kind(overlay, "Role")
    return {
        grant
        for binding in of_kind(overlay, "RoleBinding").values()
        if account in [subject["name"] for subject in binding["subjects"]]
        for grant in grants(roles[binding["roleRef"]["name"]])
    }


@pytest.mark.parametrize(
    ("overlay", "account", "expected"),
    [
        ("base", "limbeck-runner", RUNNER),
        ("overlays/dev", "limbeck-runner", RUNNER),
        ("overlays/prod", "limbeck-runner", RUNNER),
        ("overlays/kueue", "limbeck-runner", RUNNER),
        ("examples/team", "limbeck-runner", RUNNER | TRAIN_JOBS),
        ("examples/team", "limbeck-submitter", SUBMITTER),
        ("base", "limbeck-submitter", SUBMITTER),
        ("base", "default", set()),
    ],
)
def test_an_account_may_do_exactly_what_it_uses(overlay: str, account: str, expected: set[Grant]) -> None:
    assert granted(overlay, account) == expected


def test_no_role_has_wildcards_reads_secrets_at_large_or_reaches_further() -> None:
    roles = [resource for resource in everything() if resource["kind"] in ("Role", "ClusterRole")]
    assert {role["kind"] for role in roles} == {"Role"}
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            subresources = {kind for kind in rule["resources"] if "/" in kind}
            assert subresources <= {"pods/log"}  # not pods/exec, not serviceaccounts/token
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"]
                assert rule["resourceNames"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_binding_joins_a_role_and_an_account_that_are_there(overlay: str) -> None:
    roles, accounts = of_kind(overlay, "Role"), of_kind(overlay, "ServiceAccount")
    bound = set()
    for binding in of_kind(overlay, "RoleBinding").values():
        assert binding["roleRef"]["kind"] == "Role"
        bound.add(binding["roleRef"]["name"])
        for subject in binding["subjects"]:
            assert subject["kind"] == "ServiceAccount"
            assert subject["name"] in accounts
    assert bound == set(roles)


def test_only_the_account_of_runs_gets_a_token_in_its_pods() -> None:
    accounts = of_kind("base", "ServiceAccount")
    tokens = {name: account["automountServiceAccountToken"] for name, account in accounts.items()}
    assert tokens == {"limbeck-runner": True, "limbeck-submitter": False, "default": False}


def test_the_namespace_refuses_pods_that_are_not_restricted_by_a_pinned_rule() -> None:
    for overlay in ("base", "overlays/dev", "overlays/prod", "overlays/kueue", "examples/team"):
        (namespace,) = (resource for resource in built(overlay) if resource["kind"] == "Namespace")
        labels = namespace["metadata"]["labels"]
        for mode in ("enforce", "audit", "warn"):
            assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
            assert labels[f"pod-security.kubernetes.io/{mode}-version"] == "v1.31"
        assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile"  # Kubeflow's store lets in no other
