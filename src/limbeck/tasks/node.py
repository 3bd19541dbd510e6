"""One node of a training on several: `python -m limbeck.tasks.node URI` in the pods of a TrainJob.

The URI names what the launcher wrote. All nodes do the same work; the first one alone commits the result, and notes
here what it made. A node that crashes is not started again in its pod: the others are gone by then, and the JobSet
starts all of them together.
"""

import sys

from limbeck.config import parse_config
from limbeck.progress import say
from limbeck.storage import Store
from limbeck.tasks import attempts, trainings
from limbeck.tasks.artifacts import task
from limbeck.tasks.launching import GIVEN, MADE
from limbeck.tasks.specs import parse_spec


def main(uri: str) -> None:
    """Train as the node that the environment says this is."""
    with task("node"):
        spec = parse_spec(Store().read_bytes(uri), uri)
        config = parse_config(spec.config, spec.variant).model_copy(update={"restarts": 0})
        made = attempts.run(spec.stage, lambda: trainings.work(spec, config), config)
        Store().write_bytes(f"{uri.removesuffix(GIVEN)}{MADE}", made.to_json().encode())
        say(f"{spec.stage}: {made.uri} is complete")


if __name__ == "__main__":
    main(sys.argv[1])
