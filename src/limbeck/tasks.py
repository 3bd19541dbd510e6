"""What a component's body calls: one function a component, artifacts in, artifacts out.

An artifact is a small file that holds a manifest; the data stays in the object store. This is the
one place that chooses engines, so a stage never knows who runs it, and the only one where an error
becomes a line and an exit code.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from limbeck import checkpoints, models
from limbeck.config import Config, ModelConfig, parse_config, parse_reward
from limbeck.errors import DataError, LimbeckError
from limbeck.manifest import Manifest, digest, parse
from limbeck.progress import say
from limbeck.storage import NO_ROOM, Store, disk_full

if TYPE_CHECKING:
    from limbeck.sampler import VllmSampler

Settings = dict[str, Any]


class Artifact(Protocol):
    """What Kubeflow hands to a component for each input and output."""

    path: str
    metadata: dict[str, Any]


class MetricsArtifact(Artifact, Protocol):
    """An artifact that the Kubeflow UI shows as a table of figures."""

    def log_metric(self, metric: str, value: float) -> None:
        """Add one figure."""


def preflight(*, work_uri: str, config: Settings, num_shards: int) -> list[int]:
    """Check settings, store and models before anything costs time; give the shards to loop over."""
    with _task("preflight"):
        checked, store = parse_config(config), Store()
        store.write_bytes(f"{work_uri}/preflight", b"limbeck writes here\n")
        with tempfile.TemporaryDirectory() as scratch:
            for role, model in (("teacher", checked.teacher), ("student", checked.student)):
                # Weights are large and are checked when they are loaded; the rest tells enough.
                models.check_folder(
                    models.fetch_small_files(store, model.path, Path(scratch) / role), model.path
                )
        say(f"preflight: settings, object store and both models are fine; {num_shards} shards")
        return list(range(num_shards))


def prepare(*, work_uri: str, config: Settings, prompts: Artifact, heldout: Artifact, gold: Artifact) -> None:
    """See `limbeck.stages.prepare`."""
    with _task("prepare"):
        from limbeck.stages import prepare as stage

        made = stage.run(parse_config(config), Store(), work_uri)
        for manifest, artifact in zip(made, (prompts, heldout, gold), strict=True):
            _write(manifest, artifact)


def generate(
    *,
    prompts: Artifact,
    work_uri: str,
    config: Settings,
    completions: Artifact,
    role: str,
    shard: int,
    num_shards: int,
    checkpoint: Artifact | None,
) -> None:
    """See `limbeck.stages.generate`."""
    with _task("generate"), _model(config, checkpoint, role) as (checked, store, model_hash, open_sampler):
        from limbeck.stages import generate as stage

        made = stage.run(
            prompts=_read(prompts),
            model_hash=model_hash,
            open_sampler=open_sampler,
            config=checked,
            store=store,
            work_uri=work_uri,
            role="student" if role == "student" else "teacher",
            shard=shard,
            num_shards=num_shards,
        )
        _write(made, completions)


def judge(
    *, prompts: Artifact, completions: Artifact, work_uri: str, config: Settings, judgements: Artifact
) -> None:
    """See `limbeck.stages.judge`."""
    with _task("judge"), _model(config, None, "teacher") as (checked, store, model_hash, open_sampler):
        from limbeck.stages import judge as stage

        made = stage.run(
            prompts=_read(prompts),
            completions=_read(completions),
            model_hash=model_hash,
            open_sampler=open_sampler,
            config=checked,
            store=store,
            work_uri=work_uri,
        )
        _write(made, judgements)


def label(
    *,
    prompts: Artifact,
    completions: Sequence[Artifact],
    work_uri: str,
    config: Settings,
    labels: Artifact,
    labelled: Artifact,
    judgements: Sequence[Artifact] | None,
    given_labels: Artifact | None,
) -> None:
    """See `limbeck.stages.label`."""
    with _task("label"):
        from limbeck.stages import label as stage

        made = stage.run(
            prompts=_read(prompts),
            completions=_read_all(completions),
            judgements=_read_all(judgements or ()),
            given_labels=_read(given_labels) if given_labels else None,
            config=parse_config(config),
            store=Store(),
            work_uri=work_uri,
        )
        _write(made.labels, labels)
        _write(made.labelled, labelled)


def sft(*, labelled: Artifact, work_uri: str, config: Settings, checkpoint: Artifact, selection: str) -> None:
    """See `limbeck.stages.sft`."""
    with _task("sft"):
        from limbeck.stages import sft as stage

        checked, store = parse_config(config), Store()

        def train(**arguments: Any) -> Any:
            from limbeck.trainer.sft import train_sft

            return train_sft(**arguments)

        made = stage.run(
            labelled=_read(labelled),
            base_hash=_base_hash(store, checked.student),
            fetch_base=lambda folder: checkpoints.fetch_base(store, checked.student.path, folder),
            train=train,
            config=checked,
            store=store,
            work_uri=work_uri,
            selection="all" if selection == "all" else "selected",
        )
        _write(made, checkpoint)


def reward(
    *,
    teacher_labelled: Artifact,
    student_labelled: Artifact,
    checkpoint: Artifact,
    work_uri: str,
    config: Settings,
    reward_model: Artifact,
    metrics: MetricsArtifact,
) -> None:
    """See `limbeck.stages.reward`."""
    with _task("reward"):
        from limbeck.stages import reward as stage

        checked, store, student = parse_config(config), Store(), _read(checkpoint)
        from_teacher = checked.reward.init == "teacher"

        def fetch_base(folder: Path) -> Path:
            if from_teacher:
                return checkpoints.fetch_base(store, checked.teacher.path, folder)
            return checkpoints.fetch(store, student, folder)

        def train(**arguments: Any) -> Any:
            from limbeck.trainer.reward import train_reward

            return train_reward(**arguments)

        made = stage.run(
            teacher_labelled=_read(teacher_labelled),
            student_labelled=_read(student_labelled),
            base_hash=_base_hash(store, checked.teacher) if from_teacher else student.content_hash,
            fetch_base=fetch_base,
            train=train,
            config=checked,
            store=store,
            work_uri=work_uri,
        )
        _write(made, reward_model, metrics)


def ppo(
    *,
    prompts: Artifact,
    labels: Artifact,
    checkpoint: Artifact,
    reward_model: Artifact,
    work_uri: str,
    config: Settings,
    policy: Artifact,
    metrics: MetricsArtifact,
    reward: str,
) -> None:
    """See `limbeck.stages.ppo`."""
    with _task("ppo"):
        from limbeck.stages import ppo as stage

        checked = parse_config(config)

        def open_sampler(folder: Path) -> "VllmSampler":
            from limbeck.sampler import VllmSampler

            return VllmSampler(folder, checked.student, checked.engine)

        def train(**arguments: Any) -> Any:
            from limbeck.trainer.ppo import train_ppo

            return train_ppo(**arguments)

        made = stage.run(
            prompts=_read(prompts),
            labels=_read(labels),
            checkpoint=_read(checkpoint),
            reward_model=_read(reward_model),
            open_sampler=open_sampler,
            train=train,
            config=checked,
            store=Store(),
            work_uri=work_uri,
            reward=parse_reward(reward),
        )
        _write(made, policy, metrics)


def evaluate(
    *,
    heldout: Artifact,
    gold: Artifact,
    work_uri: str,
    config: Settings,
    results: Artifact,
    metrics: MetricsArtifact,
    name: str,
    checkpoint: Artifact | None,
) -> None:
    """See `limbeck.stages.evaluate`."""
    with _task("evaluate"), _model(config, checkpoint, name) as (checked, store, model_hash, open_sampler):
        from limbeck.stages import evaluate as stage

        made = stage.run(
            heldout=_read(heldout),
            gold=_read(gold),
            model_hash=model_hash,
            open_sampler=open_sampler,
            config=checked,
            store=store,
            work_uri=work_uri,
            name=_read(checkpoint).name if checkpoint else name,
        )
        _write(made, results, metrics)


def pick(*, checkpoints: Sequence[Artifact], names: Sequence[str], picked: Artifact, metric: str) -> None:
    """Give on one of several checkpoints: the first of `names`, or the one with the highest metric."""
    with _task("pick"):
        found = {item.name: item for item in _read_all(checkpoints)}
        present = [found[name] for name in names if name in found]
        if not present:
            raise DataError(
                "no such checkpoint",
                where="component pick",
                expected=" or ".join(names),
                got=", ".join(found) or "none",
                remedy="Correct `names`",
            )
        chosen = max(present, key=lambda item: item.metrics[metric]) if metric else present[0]
        say(f"pick: {chosen.name}" + (f" with {metric} {chosen.metrics[metric]:.3f}" if metric else ""))
        _write(chosen, picked)


def report(
    *,
    prompts: Artifact,
    heldout: Artifact,
    gold: Artifact,
    completions: Sequence[Artifact],
    judgements: Sequence[Artifact],
    labels: Artifact,
    student_completions: Sequence[Artifact],
    sft_checkpoints: Sequence[Artifact],
    reward_model: Artifact,
    policies: Sequence[Artifact],
    policy: Artifact,
    base_results: Sequence[Artifact],
    sft_results: Sequence[Artifact],
    policy_results: Sequence[Artifact],
    work_uri: str,
    config: Settings,
    page: Artifact,
    summary: Artifact,
    metrics: MetricsArtifact,
    run_report: Artifact,
) -> None:
    """See `limbeck.stages.report`; the page and its summary also go out as they are."""
    with _task("report"):
        from limbeck.stages import report as stage

        store = Store()
        inputs = stage.ReportInputs(
            prompts=_read(prompts),
            heldout=_read(heldout),
            gold=_read(gold),
            completions=_read_all(completions),
            judgements=_read_all(judgements),
            labels=_read(labels),
            sft_checkpoints=_read_all(sft_checkpoints),
            student_completions=_read_all(student_completions),
            reward_model=_read(reward_model),
            policies=_read_all(policies),
            policy=_read(policy),
            results=_read_all([*base_results, *sft_results, *policy_results]),
        )
        made = stage.run(inputs, parse_config(config), store, work_uri)
        _write(made, run_report, metrics)
        for item in made.objects:
            if item.uri.endswith("/report.html"):
                store.read_file(item, Path(page.path))
            elif item.uri.endswith("/report.md"):
                store.read_file(item, Path(summary.path))


@contextmanager
def _task(name: str) -> Iterator[None]:
    """Name the task in the store's access log, and turn an error into one line and its exit code."""
    os.environ["AWS_SDK_UA_APP_ID"] = f"limbeck-{name}"
    try:
        yield
    except LimbeckError as error:
        _end(error)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _end(disk_full(error.filename or f"task {name}"))


def _end(error: LimbeckError) -> NoReturn:
    say(f"error {error.exit_code}: {error}")
    # Not sys.exit: engines leave threads and exit handlers behind that can hang or crash.
    os._exit(error.exit_code)


@contextmanager
def _model(
    config: Settings, checkpoint: Artifact | None, role: str
) -> "Iterator[tuple[Config, Store, str, Callable[[], VllmSampler]]]":
    """A model to sample from: a given checkpoint, or the base model of a role; opened when asked for."""
    checked, store = parse_config(config), Store()
    model = checked.teacher if role == "teacher" else checked.student
    given = _read(checkpoint) if checkpoint else None
    model_hash = given.content_hash if given else _base_hash(store, model)
    with tempfile.TemporaryDirectory() as scratch:

        def open_sampler() -> "VllmSampler":
            from limbeck.sampler import VllmSampler

            folder = Path(scratch) / "model"
            if given:
                folder = checkpoints.fetch(store, given, folder)
            else:
                folder = models.check_folder(checkpoints.fetch_base(store, model.path, folder), model.path)
            return VllmSampler(folder, model, checked.engine)

        yield checked, store, digest([model_hash, model.dtype]), open_sampler


def _base_hash(store: Store, model: ModelConfig) -> str:
    return checkpoints.identity(store, model.path)


def _read(artifact: Artifact) -> Manifest:
    """The manifest that an input artifact holds."""
    return parse(Path(artifact.path).read_text(encoding="utf-8"), artifact.path)


def _read_all(artifacts: Sequence[Artifact]) -> tuple[Manifest, ...]:
    return tuple(_read(artifact) for artifact in artifacts)


def _write(manifest: Manifest, artifact: Artifact, metrics: MetricsArtifact | None = None) -> None:
    """Put a manifest into an output artifact, and its figures where the Kubeflow UI shows them."""
    Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    Path(artifact.path).write_text(manifest.to_json(), encoding="utf-8")
    artifact.metadata.update(uri=manifest.uri, rows=manifest.num_rows, name=manifest.name)
    for name, value in manifest.metrics.items():
        if metrics is not None:
            metrics.log_metric(name.replace("/", "_"), value)
