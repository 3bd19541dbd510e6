"""Another team's pipeline: Limbeck's `prepare` and `generate` between two components of its own.

    python pipeline.py PREPARE GENERATE TARGET

PREPARE and GENERATE are files or URLs of Limbeck's compiled components, TARGET is the YAML to write. Only
kfp and kfp-kubernetes are needed here, and boto3 and pyarrow in the team's own image; Limbeck is not.
"""

import sys
from typing import Any

from kfp import compiler, components, dsl, kubernetes

IMAGE = "registry.example.com/our-team/data:1.0"
S3_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def collect(questions: list[str], data_uri: str) -> str:
    """Put questions into the object store as the JSONL file that `prepare` reads; give its URI."""
    import hashlib
    import json

    import boto3

    text = "".join(json.dumps({"prompt": question}) + "\n" for question in questions).encode()
    # Caches go by names: another content gets another one.
    uri = f"{data_uri}/{hashlib.sha256(text).hexdigest()[:16]}.jsonl"
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=text)
    return uri


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def count(completions: dsl.Input[dsl.Dataset]) -> int:
    """Count completions: the manifest says where they are, and each part is checked against it."""
    import hashlib
    import io
    import json
    from pathlib import Path

    import boto3
    import pyarrow.parquet as pq

    manifest = json.loads(Path(completions.path).read_text())
    if (manifest["schema_version"], manifest["kind"]) != (1, "completions"):
        raise ValueError(f"not completions of schema version 1: {manifest['kind']}")
    store, rows = boto3.client("s3"), 0
    for item in manifest["objects"]:
        bucket, _, key = item["uri"].removeprefix("s3://").partition("/")
        if not key.rpartition("/")[2].startswith("part-"):  # rows that were set aside
            continue
        content = store.get_object(Bucket=bucket, Key=key)["Body"].read()
        if hashlib.sha256(content).hexdigest() != item["sha256"]:
            raise ValueError(f"{item['uri']} is not what the manifest lists")
        rows += pq.read_table(io.BytesIO(content), columns=["completion_id"]).num_rows
    return rows


def load(where: str) -> Any:
    """Load a compiled component by URL or by file."""
    if "://" in where:
        return components.load_component_from_url(where)
    return components.load_component_from_file(where)


def define(prepare: Any, generate: Any) -> Any:
    """Wire the two between our own."""

    @dsl.pipeline(name="reuse")
    def reuse(
        questions: list[str],
        model: str,
        work_uri: str,
        config: dict[str, Any] = {},
        s3_secret: str = "limbeck-s3",
    ) -> int:
        """Answer questions and count the answers."""
        collected = collect(questions=questions, data_uri=work_uri)
        prepared = prepare(data=collected.output, work_uri=work_uri, config=config)
        answered = generate(
            prompts=prepared.outputs["prompts"], model=model, work_uri=work_uri, config=config
        )
        counted = count(completions=answered.outputs["completions"])

        answered.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        kubernetes.empty_dir_mount(answered, "shm", "/dev/shm", medium="Memory", size_limit="8Gi")
        for task in (collected, prepared, answered, counted):
            kubernetes.use_secret_as_env(task, s3_secret, {key: key for key in S3_VARIABLES})
            # The default of an hour is less than one attempt of a long stage.
            task.set_retry(3, backoff_duration="30s", backoff_max_duration="1209600s")
        return counted.output

    return reuse


if __name__ == "__main__":
    prepare_at, generate_at, target = sys.argv[1:]
    compiler.Compiler().compile(define(load(prepare_at), load(generate_at)), target)
