"""Which node of a training a process is on, by what Kubeflow Trainer tells a pod."""

import pytest

from limbeck.errors import ConfigError
from limbeck.nodes import Node

PET = {
    "PET_NNODES": "3",
    "PET_NODE_RANK": "2",
    "PET_NPROC_PER_NODE": "4",
    "PET_MASTER_ADDR": "train-node-0-0.train",
    "PET_MASTER_PORT": "29400",
}


@pytest.mark.parametrize(
    ("environment", "node", "leads"),
    [
        ({}, Node(), True),
        (PET, Node(2, 3, "train-node-0-0.train", 29400, 4), False),
        (
            PET | {"PET_NODE_RANK": "0", "PET_NPROC_PER_NODE": "auto"},
            Node(0, 3, PET["PET_MASTER_ADDR"], 29400),
            True,
        ),
    ],
    ids=["alone", "the last of three", "the first of three, one process a GPU"],
)
def test_what_a_pod_is_told(environment: dict[str, str], node: Node, leads: bool) -> None:
    assert Node.from_environment(environment) == node
    assert node.leads is leads


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"PET_NODE_RANK": "3"}, r"rank 3 of 3"),
        ({"PET_NODE_RANK": "two"}, r"not a number in environment variable PET_NODE_RANK.*got 'two'"),
        ({"PET_MASTER_PORT": "0"}, r"port 0"),
    ],
    ids=str,
)
def test_variables_that_do_not_fit_together(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Node.from_environment(PET | changed)


@pytest.mark.parametrize(
    ("wanted", "told", "given"),
    [(2, 4, 2), (None, 4, 4), (None, None, 1)],
    ids=["settings", "Kubeflow", "no GPU"],
)
def test_how_many_processes_train_on_a_node(wanted: int | None, told: int | None, given: int) -> None:
    assert Node(processes=told).num_processes(wanted) == given
