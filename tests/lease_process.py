"""An attempt in a process of its own, which does what it is told on its standard input: what a test can kill.

python -m tests.lease_process URI TTL      says `held`, then obeys: check, commit CONTENT, end
"""

import subprocess
import sys
from pathlib import Path

from limbeck import lease, local
from limbeck.errors import LeaseError
from limbeck.manifest import Manifest, commit
from limbeck.storage import Store


class Attempt:
    """The test's side of it."""

    def __init__(self, uri: str, ttl_seconds: float, *, hold: bool = True) -> None:
        """Start it; unless told otherwise it takes the lease as soon as it can."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lease_process", uri, str(ttl_seconds)],
            cwd=Path(__file__).parents[1],
            env=local.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if hold:
            self.send("hold")

    def send(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The next line that it says."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def do(self, command: str) -> str:
        self.send(command)
        return self.answer()

    def end(self) -> tuple[int, str]:
        """Its exit code and the rest of what it says."""
        output, _ = self.process.communicate()
        return self.process.returncode, output


def manifest(uri: str, content: str) -> Manifest:
    """A manifest without objects."""
    return Manifest(
        stage="test",
        kind="rows",
        name=content,
        uri=uri,
        objects=(),
        inputs={},
        config_hash="",
        code_version="",
    )


def main(uri: str, ttl_seconds: float) -> None:
    """Take the lease and obey."""
    store = Store()
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with lease.held(store, uri, "attempt", ttl_seconds) as held:
            print("held", flush=True)
            for line in sys.stdin:
                command, _, content = line.strip().partition(" ")
                if command == "end":
                    break
                if command == "check":
                    held.check()
                elif command == "commit":
                    commit(store, manifest(uri, content), held)
                print(f"{command} done", flush=True)
    except LeaseError as error:
        print(f"error {error.exit_code}: {error}", flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
