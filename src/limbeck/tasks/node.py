"""One node of a training on several: `python -m limbeck.tasks.node URI` in the pods of a TrainJob.

The URI names what the launcher wrote. All nodes do the same work; the first one alone commits the result, and
notes beside the URI what it made.
"""

import sys

from limbeck.config import Config, parse_config
from limbeck.manifest import Manifest
from limbeck.nodes import Node
from limbeck.storage import Store
from limbeck.tasks import attempts, trainings
from limbeck.tasks.artifacts import task
from limbeck.tasks.launching import GIVEN, MADE
from limbeck.tasks.specs import parse_spec

# A crash ends the pod: the other nodes are lost with it, and the JobSet starts all of them together.
ONCE = Config(restarts=0)


def main(uri: str) -> None:
    """Train as the node that the environment says this is."""
    with task("node"):
        node = Node.from_environment()
        attempts.run(f"node {node.rank}", lambda: _work(uri, node), ONCE)


def _work(uri: str, node: Node) -> Manifest | None:
    store = Store()
    spec = parse_spec(store.read_bytes(uri), uri)
    made = trainings.work(spec, parse_config(spec.config, spec.variant), node)
    if made is not None:
        store.write_bytes(f"{uri.removesuffix(GIVEN)}{MADE}", made.to_json().encode())
    return made


if __name__ == "__main__":
    main(sys.argv[1])
