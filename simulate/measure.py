"""What an attempt of `generate` pays to read its prompts: `python -m simulate.measure [--rows 100000]`."""

import argparse
import tempfile
import time
from pathlib import Path

from limbeck import seaweed
from limbeck.manifest import Manifest
from limbeck.records import Prompt, row_id
from limbeck.rows import PartWriter, iter_rows

NUM_SHARDS = 1000
URI = "s3://bench/prompts"


def main() -> None:
    """Read them as the stage does, and print its CPU time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    num_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder, seaweed.serve(Path(folder)) as store:
        store.make_bucket(URI)
        with PartWriter(store, URI, Prompt) as writer:
            for number in range(num_rows):
                writer.add(Prompt(prompt_id=f"{number:016x}", prompt=(f"{number} " * 100)[:300]))
        manifest = Manifest(
            stage="prepare",
            kind="prompts",
            name="prompts",
            uri=URI,
            objects=tuple(writer.objects),
            inputs={},
            config_hash="",
            code_version="",
            num_rows=num_rows,
        )
        started = time.process_time()
        rows = iter_rows(store, [manifest], Prompt)
        mine = [row for row in rows if int(row_id(row.prompt_id), 16) % NUM_SHARDS == 0]
        seconds = time.process_time() - started
    each = seconds / num_rows * 1e6
    print(f"{len(mine)} of {num_rows} prompts kept; each that was read took {each:.1f} µs of CPU")


if __name__ == "__main__":
    main()
