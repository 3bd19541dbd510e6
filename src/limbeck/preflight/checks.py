"""All checks of a run in order; one that fails keeps none of the others from being made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from limbeck import checkpoints
from limbeck.config import GPU_STAGES, Config, Dtype
from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest, load_manifest
from limbeck.preflight import context, endpoint, gpus, memory, pod, templates, trainjob, vocabulary
from limbeck.preflight.asked import (
    ABLATION,
    Asked,
    incomparable,
    judges,
    misjudged,
    mislabelled,
    misnamed,
    missing,
    read_settings,
    without_secrets,
)
from limbeck.preflight.data import check_data
from limbeck.preflight.findings import Finding, collected, warning
from limbeck.preflight.models import ModelFacts, check_model
from limbeck.preflight.places import Place, is_stored
from limbeck.preflight.world import World, further_models, look
from limbeck.resources import StageRequest
from limbeck.run_file import RunFile


@dataclass(frozen=True)
class Outcome:
    """What a preflight gave."""

    findings: list[Finding]
    checked: list[str]
    """What was looked at, for people."""
    models: dict[str, ModelFacts]
    """What is known of each model, by parameter; a warmed-up `checkpoint` stands for the student."""


def check_run_file(
    run_file: RunFile, stages: Sequence[str], *, gold_labels: bool = False, open_ended: bool = False
) -> Outcome:
    """The same checks from a person's machine; local files and folders are looked at where they are.

    Args:
        run_file: What `limbeck run` or `limbeck submit` would be given.
        stages: The stages of the pipeline.
        gold_labels: Whether it gives gold answers to `label`.
        open_ended: Whether it judges the student's completions too.
    """
    given = run_file.model_dump(mode="json", include=set(Asked.__dataclass_fields__))
    return check(Asked(stages=stages, gold_labels=gold_labels, open_ended=open_ended, **given))


def check(given: Asked, *, running: bool = False) -> Outcome:
    """Check a run before anything of it starts.

    Args:
        given: The run.
        running: Whether this is its first task: what is not here is then not there for the others either.
    """
    asked, findings = without_secrets(given)
    settings, wrong = read_settings(asked)
    config, requests = settings.config, settings.requests
    findings += [*wrong, *missing(given, config), *misnamed(asked)]
    findings += [*mislabelled(asked, config), *misjudged(asked, config), *incomparable(asked)]
    world = look(asked, findings)
    findings += _data(asked, world, config) + _finished(asked, world)
    models = _models(asked, world, config, findings)
    checked = ["settings", *world.checked, *_names(asked, world, models)]
    if config and asked.asks_a_server and asked.teacher and judges(asked, config):
        findings += endpoint.check_server(asked.teacher, config.openai, checked)
    if config:
        findings += context.check_lengths(asked, config)
        findings += _fitting(asked, models, config, checked)
        findings += pod.check_shared_memory(asked, config)
        findings += trainjob.check_nodes(asked, config, trainjob.own_cluster(), running=running)
        findings += _scratch(asked, models, config)
    if config and requests:
        config, unshared = gpus.settled(config, requests, asked.stages)
        findings += unshared + gpus.check_counts(asked, config, requests)
        findings += _memory(asked, models, config, requests, checked)
    return Outcome(list({str(finding): finding for finding in findings}.values()), checked, models)


def _data(asked: Asked, world: World, config: Config | None) -> list[Finding]:
    """The data sets; by the default columns where the settings cannot be read."""
    findings: list[Finding] = []
    config = config or Config()
    for key in ("prompts", "heldout"):
        place = world.place(key, getattr(asked, key))
        if place:
            measures = key == "heldout" or not asked.heldout
            labels = key == "prompts" and (asked.gold_labels or asked.runs(ABLATION))
            findings += check_data(place, config, measures=measures and asked.runs("evaluate"), labels=labels)
    return findings


def _finished(asked: Asked, world: World) -> list[Finding]:
    """What a run takes over from an earlier one."""
    findings: list[Finding] = []
    found: dict[str, Manifest] = {}
    for key, kinds in (
        ("prepared_uri", ("prompts", "heldout", "gold")),
        ("label_uri", ("labels", "labelled")),
    ):
        place = world.place(key, getattr(asked, key))
        if place is None or world.client is None:
            continue
        for kind in kinds:
            with collected(findings):
                manifest = load_manifest(world.client, place.path, kind)
                if manifest is None:
                    raise DataError(
                        f"nothing finished in `{key}`",
                        where=place.path,
                        expected=f"a manifest of {kind}",
                        remedy="`limbeck status WORK_URI` shows what is there",
                    )
                found[kind] = manifest
    if "prompts" not in found:
        return findings
    prompts = found["prompts"].content_hash
    if any(found[kind].inputs.get("prompts") != prompts for kind in ("labels", "labelled") if kind in found):
        error = DataError(
            "labels of other prompts than those in `prepared_uri`",
            where=asked.label_uri,
            expected=f"labels of the prompts in {asked.prepared_uri}",
            remedy="Give a `prepare` and a `label` of the same run; `limbeck status WORK_URI` shows them",
        )
        findings.append(Finding(error))
    return findings


def _models(
    asked: Asked, world: World, config: Config | None, findings: list[Finding]
) -> dict[str, ModelFacts]:
    """What is known of each model, by parameter; a warmed-up `checkpoint` stands for the student."""
    named = [("student", asked.student), ("checkpoint", asked.checkpoint)]
    if not asked.asks_a_server:
        named.insert(0, ("teacher", asked.teacher))
    found = {}
    for key, path in [*named, *further_models(asked)]:
        place = world.place(key, path)
        if place is None:
            continue
        if key == "checkpoint":
            place = _of_a_stage(place, findings)
        role = "teacher" if key == "teacher" else "student"
        settings = getattr(config, role) if config else None
        facts, wrong = check_model(place, settings, f"config.{role}")
        findings += wrong
        if facts:
            findings += vocabulary.check_tokenizer(facts)
            findings += templates.check_template(facts, config.chat(role)) if config else []
            found["student" if key == "checkpoint" else key] = facts
    return found


def _of_a_stage(place: Place, findings: list[Finding]) -> Place:
    """Where the files of a checkpoint lie: below the manifest of a stage, or at the address itself."""
    with collected(findings):
        in_store = place.store if is_stored(place.path) else None
        manifest = load_manifest(in_store, place.path, "checkpoint") if in_store else None
        if manifest and manifest.objects:
            return replace(place, path=checkpoints.base_uri(manifest))
    return place


def _sampled(
    asked: Asked, models: Mapping[str, ModelFacts], config: Config
) -> list[tuple[ModelFacts, Dtype]]:
    """The models that vLLM loads in this run, and their number types."""
    stages = {"student": ("generate", "ppo", "evaluate")}
    return [
        (facts, config.teacher.dtype if key == "teacher" else config.student.dtype)
        for key, facts in models.items()
        if (judges(asked, config) if key == "teacher" else asked.runs(*stages.get(key, ("evaluate",))))
    ]


def _fitting(
    asked: Asked, models: Mapping[str, ModelFacts], config: Config, checked: list[str]
) -> list[Finding]:
    """Whether models fit the settings and one another."""
    findings: list[Finding] = []
    for facts, dtype in _sampled(asked, models, config):
        findings += context.check_context(facts, config) + vocabulary.check_ids(facts)
        findings += gpus.check_split(facts, config) + gpus.check_kv_cache(facts, dtype, config)
    teacher, student = models.get("teacher"), models.get("student")
    if student:
        findings += context.check_row_lengths(student, asked, config)
    from_reward_model = config.ppo.algorithm == "ppo" and config.ppo.value_init == "reward"
    from_teacher = config.reward.init == "teacher" and from_reward_model
    if student and teacher and from_teacher and asked.runs("ppo"):
        findings += vocabulary.check_critic(student, teacher)
    if teacher and judges(asked, config):
        if vocabulary.can_read(teacher):
            findings += vocabulary.check_words(teacher, config.judge)
        else:
            checked.append("not the judge's words: that needs the package tokenizers and a tokenizer.json")
    return findings


def _memory(
    asked: Asked,
    models: Mapping[str, ModelFacts],
    config: Config,
    requests: Mapping[str, StageRequest],
    checked: list[str],
) -> list[Finding]:
    """Whether models, contexts and trainings fit a GPU."""
    with_gpu = [stage for stage in GPU_STAGES if asked.runs(stage) and requests[stage].gpus]
    if not with_gpu:
        return []
    asked = replace(asked, stages=[*with_gpu, ABLATION] if asked.runs(ABLATION) else with_gpu)
    size = gpus.gpu_bytes(config)
    if size is None:
        error = ConfigError(
            "GPU memory was not checked, as its size is not known here",
            where="config.engine.gpu_memory_gib",
            remedy="Set it to the memory of one GPU in GiB, such as 80",
        )
        return [warning(error)]
    findings: list[Finding] = []
    for facts, dtype in _sampled(asked, models, config):
        findings += gpus.check_sampling(facts, dtype, config, size)
        if facts.shape:
            fit = memory.sequences(facts.shape, dtype, config.engine, size)
            checked.append(
                f"{facts.place.key}: a GPU holds {fit} sequences of {config.engine.max_model_len} tokens"
            )
        else:
            checked.append(f"not the GPU memory of {facts.place.key}: its config.json names no sizes")
    shapes = {key: facts.shape for key, facts in models.items()}
    return findings + gpus.check_training(asked, config, shapes.get("student"), shapes.get("teacher"), size)


def _scratch(asked: Asked, models: Mapping[str, ModelFacts], config: Config) -> list[Finding]:
    """Whether checkpoints fit the local disk."""
    roles = {key: facts for key, facts in models.items() if facts.shape}
    base = "teacher" if config.reward.init == "teacher" else "student"
    if base in roles:
        roles["reward"] = roles[base]
    stored = {key: facts.stored_bytes for key, facts in roles.items()}
    trained = {
        key: memory.training(facts.shape.parameters, facts.shape.linear_widths, dtype, settings).states
        for key, dtype, settings in (
            (
                "student",
                config.student.dtype,
                config.ppo.deepspeed if asked.runs("ppo") else config.sft.deepspeed,
            ),
            ("reward", getattr(config, base).dtype, config.reward.deepspeed),
        )
        if (facts := roles.get(key)) and facts.shape
    }
    return pod.check_scratch(pod.scratch_bytes(asked, stored, trained))


def _names(asked: Asked, world: World, models: Mapping[str, ModelFacts]) -> list[str]:
    """Data sets and models that were looked at."""
    data = [key for key in ("prompts", "heldout") if world.place(key, getattr(asked, key))]
    sizes = [
        f"{key} with {facts.shape.parameters / 1e6:,.1f} million weights" if facts.shape else key
        for key, facts in models.items()
    ]
    return [", ".join([*data, *sizes])] if data or sizes else []
