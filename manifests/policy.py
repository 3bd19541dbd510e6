"""Checks every overlay against checkov's policies for Kubernetes: `python -m manifests.policy CHECKOV`.

checkov pins its own boto3, so it has an environment of its own (manifests/policy.lock). An exception is an
annotation `checkov.io/skipN: CHECK=reason` of the object it concerns; nothing is skipped for all.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from limbeck.errors import GateError
from manifests.kustomize import OVERLAYS, ROOT, build


def check(checkov: Path) -> str:
    """Run checkov over all overlays; give what it printed.

    Args:
        checkov: The program.

    Raises:
        GateError: when a policy is broken, or checkov looked at nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        for overlay in OVERLAYS:
            (Path(folder) / f"{overlay.replace('/', '-')}.yaml").write_text(build(ROOT / overlay))
        command = [str(checkov), "--directory", folder, "--framework", "kubernetes", "--compact", "--quiet"]
        done = subprocess.run(
            [*command, "--skip-download"], capture_output=True, text=True, check=False, timeout=300
        )
    if done.returncode != 0 or "Passed checks: " not in done.stdout:
        raise GateError(
            "the manifests break a policy",
            where="manifests/",
            got=f"{done.stdout.strip()} {done.stderr.strip()[-500:]}",
            remedy="Mend it, or add an annotation `checkov.io/skipN: CHECK=reason` to the object",
        )
    return done.stdout


if __name__ == "__main__":
    try:
        print(check(Path(sys.argv[1])).strip())
    except GateError as error:
        sys.exit(str(error))
