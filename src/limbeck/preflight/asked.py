"""What a run asks for, as its parameters say it, and what is wrong with the parameters themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from limbeck.config import GPU_STAGES, Config, parse_config
from limbeck.credentials import USE_A_SECRET, looks_like_one, named_like_one
from limbeck.errors import ConfigError
from limbeck.preflight.findings import Finding, collected
from limbeck.resources import CPU_STAGES, StageRequest, parse_resources, requests
from limbeck.run_file import RunFile
from limbeck.section import parse

ABLATION = "ablation"
"""What an ablation runs beside the stages."""
STAGES = (*CPU_STAGES, *GPU_STAGES, ABLATION)
ADDRESSES = (
    "work_uri",
    "prompts",
    "heldout",
    "teacher",
    "student",
    "checkpoint",
    "prepared_uri",
    "label_uri",
)
EARLIER = {
    "prepared_uri": "a finished `prepare`, as `limbeck status` shows it",
    "label_uri": "a finished `label` of the teacher's completions",
    "checkpoint": "the warmed-up student, a finished `sft` or a Hugging Face folder",
}
"""What a run that starts at the reward model takes over, and what each is."""
TRAIN_STAGES = ("generate", "judge", "label", "sft", "reward", "ppo")
MAX_GPUS = 64
CHOICES = (
    "num_shards",
    "ppo_rewards",
    "reward_variants",
    "noise_variants",
    "gpu_resource",
    "train_jobs",
    "node_selector",
    "node_affinity",
    "tolerations",
)
"""Parameters that are what a run file holds under these names."""


@dataclass(frozen=True)
class Asked:
    """The parameters of one run. Written by the component or from a run file; read by all checks."""

    work_uri: str
    stages: Sequence[str]
    prompts: str = ""
    heldout: str = ""
    teacher: str = ""
    student: str = ""
    models: Sequence[str] = ()
    checkpoint: str = ""
    """A warmed-up student: what `distill_rewards` starts from."""
    prepared_uri: str = ""
    label_uri: str = ""
    num_shards: int = 1
    ppo_rewards: Sequence[str] = ("model",)
    reward_variants: Sequence[str] = ("reward.source_weight=0",)
    noise_variants: Sequence[str] = ("label.noise=0.1",)
    gold_labels: bool = False
    """Whether the pipeline gives gold answers to `label`."""
    open_ended: bool = False
    """Whether the pipeline judges the student's completions too."""
    gpus: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, Any] = field(default_factory=dict)
    node_affinity: dict[str, Any] = field(default_factory=dict)
    tolerations: Sequence[dict[str, Any]] = ()
    resources: dict[str, Any] = field(default_factory=dict)
    train_jobs: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def runs(self, *stages: str) -> bool:
        """Whether any of some stages will run."""
        return bool(set(stages) & set(self.stages))

    @property
    def judges_rollouts(self) -> bool:
        """Whether the teacher is the reward of a PPO run."""
        return self.runs("ppo") and "judge" in self.ppo_rewards

    @property
    def asks_a_server(self) -> bool:
        """Whether the teacher is a black box, known even where other settings are broken."""
        teacher = self.config.get("teacher")
        return isinstance(teacher, dict) and teacher.get("sampler") == "openai"


@dataclass(frozen=True)
class Settings:
    """What could be read of `config` and `resources`; None where it could not."""

    config: Config | None
    requests: dict[str, StageRequest] | None


def without_secrets(asked: Asked) -> tuple[Asked, list[Finding]]:
    """The parameters with every credential taken out, so that no message can repeat one.

    Returns:
        The parameters, and an error for each credential that names its place, never the value.
    """
    places: list[str] = []

    def clean(value: Any, place: str, key: str) -> Any:
        if isinstance(value, dict):
            return {name: clean(item, f"{place}.{name}", str(name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(clean(item, f"{place}[{number}]", key) for number, item in enumerate(value))
        if isinstance(value, str) and (looks_like_one(value) or (value and named_like_one(key))):
            places.append(place)
            return ""
        return value

    cleaned = {name: clean(value, name, name) for name, value in vars(asked).items()}
    findings = [
        Finding(
            ConfigError(
                "a credential in a parameter, where whoever sees the run reads it",
                where=place,
                remedy=f"{USE_A_SECRET}, and replace the credential: it is stored with the run",
            )
        )
        for place in places
    ]
    return replace(asked, **cleaned), findings


def read_settings(asked: Asked) -> tuple[Settings, list[Finding]]:
    """Check `config`, `resources` and `gpus`; either may be broken without hiding the other."""
    findings: list[Finding] = []
    config, asks = None, None
    try:
        config = parse_config(asked.config)
    except ConfigError as error:
        findings += [Finding(error), *_others(error, "config")]
    with collected(findings):
        if not 0 <= asked.gpus <= MAX_GPUS:
            raise ConfigError(
                "impossible number of GPUs",
                where="parameter gpus",
                expected=f"0 to {MAX_GPUS}",
                got=str(asked.gpus),
                remedy="Correct it",
            )
    try:
        choices = {name: getattr(asked, name) for name in CHOICES}
        parse(RunFile, choices | ({"config": asked.config} if config else {}), "parameters")
    except ConfigError as error:
        findings += [Finding(error), *_others(error, "parameters")]
    try:
        asks = requests(parse_resources(asked.resources), asked.gpus, black_box=asked.asks_a_server)
    except ConfigError as error:
        findings += [Finding(error), *_others(error, "resources")]
    return Settings(config, asks), findings


def _others(first: ConfigError, where: str) -> list[Finding]:
    """The mistakes behind an error that tells the first one alone."""
    mistakes = first.__cause__.errors() if isinstance(first.__cause__, ValidationError) else []
    return [
        Finding(
            ConfigError(
                f"bad setting `{'.'.join(map(str, mistake['loc']))}`",
                where=where,
                expected=mistake["msg"].removeprefix("Value error, "),
                got=repr(mistake["input"])[:80],
                remedy="Correct it",
            )
        )
        for mistake in mistakes[1:]
    ]


def missing(asked: Asked, config: Config | None) -> list[Finding]:
    """Parameters that the stages need and nobody gave."""
    return [
        Finding(
            ConfigError(
                f"missing parameter `{name}`", expected=what, got="no value", remedy="Add it to the run"
            )
        )
        for name, what in _needed(asked, config)
    ]


def misnamed(asked: Asked) -> list[Finding]:
    """Stages that do not exist, and models that the report could not tell apart: it names them by folder."""
    findings = [
        Finding(
            ConfigError(
                f"unknown stage `{stage}`",
                where="parameter stages",
                expected=", ".join(STAGES),
                remedy="Correct it, or compile the pipeline again",
            )
        )
        for stage in asked.stages
        if stage not in STAGES
    ]
    names = [model.rstrip("/").rpartition("/")[2] for model in asked.models]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        findings.append(
            Finding(
                ConfigError(
                    "models of the same name",
                    where="parameter models",
                    expected="different last parts of their addresses: the report names them so",
                    got=f"{names.count(name)} times `{name}`",
                    remedy="Copy one of them to a folder of another name",
                )
            )
        )
    return findings


def mislabelled(asked: Asked, config: Config | None) -> list[Finding]:
    """Gold answers as labels belong to a pipeline and a rule that both say so."""
    makes_labels = asked.runs("label") and not asked.label_uri
    if config is None or not makes_labels or asked.gold_labels == (config.label.rule == "gold"):
        return []
    if asked.gold_labels:
        expected, remedy = "gold, as this pipeline gives gold answers to `label`", "Set label.rule: gold"
    else:
        expected, remedy = "a rule that needs no gold answers", "Run the pipeline distill_gold"
    error = ConfigError(
        "rule and pipeline differ on gold answers",
        where="config.label.rule",
        expected=expected,
        got=config.label.rule,
        remedy=f"{remedy}, or take another pipeline or rule",
    )
    return [Finding(error)]


def incomparable(asked: Asked) -> list[Finding]:
    """What an ablation cannot make one of its rows of."""
    if not asked.runs(ABLATION):
        return []
    findings = []
    if "model" not in asked.ppo_rewards:
        findings.append(
            ConfigError(
                "an ablation without the row of the whole method",
                where="parameter ppo_rewards",
                expected="`model` among them: all variants, and the compute of SFT, go by it",
                got=", ".join(asked.ppo_rewards),
                remedy="Add it",
            )
        )
    if asked.asks_a_server:
        findings.append(
            ConfigError(
                "an ablation tunes its teacher, which a black box does not allow",
                where="config.teacher.sampler",
                expected="vllm",
                got="openai",
                remedy="Take a teacher whose weights are there, or the pipeline distill",
            )
        )
    return [Finding(error) for error in findings]


def misjudged(asked: Asked, config: Config | None) -> list[Finding]:
    """Open questions belong to a pipeline and a kind of task that both say so."""
    if config is None or not asked.runs("label") or asked.open_ended == config.task.is_open:
        return []
    if asked.open_ended:
        expected, remedy = "open, as nothing is compared here", "Set it, or run the pipeline distill"
    else:
        expected, remedy = "a kind whose answers can be compared", "Run the pipeline distill_open"
    error = ConfigError(
        "kind of task and pipeline differ on open questions",
        where="config.task.kind",
        expected=expected,
        got=config.task.kind,
        remedy=remedy,
    )
    return [Finding(error)]


def judges(asked: Asked, config: Config) -> bool:
    """Whether the teacher judges anything: completions, rollouts, or held-out answers to open questions."""
    open_answers = asked.runs("evaluate") and config.task.is_open
    return asked.runs("judge") or asked.judges_rollouts or open_answers


def _needed(asked: Asked, config: Config | None) -> Iterator[tuple[str, str]]:
    """Names of parameters that are needed and not there, each with what for."""
    if not asked.work_uri:
        yield "work_uri", "where all results go, such as s3://bucket/work"
    if asked.runs("prepare") and not asked.prompts:
        if asked.runs(*TRAIN_STAGES):
            yield "prompts", "the data set that the models answer: a file, a folder or hf://"
        elif not asked.heldout:
            yield "heldout", "the prompts to evaluate on: a file, a folder or hf://"
    reasons = {
        "judge": asked.runs("judge"),
        "reward, as reward.init is `teacher`": asked.runs("reward")
        and config is not None
        and config.reward.init == "teacher",
        "ppo, as ppo_rewards holds `judge`": asked.judges_rollouts,
        "evaluate, as task.kind is `open`": config is not None and judges(asked, config),
    }
    stage = next((name for name, needs_it in reasons.items() if needs_it), "")
    if stage and not asked.teacher:
        what = (
            "the model's name at its server"
            if asked.asks_a_server
            else "the Hugging Face folder of the larger model"
        )
        yield "teacher", f"{what}, for stage {stage}"
    if not asked.student and asked.runs("sft"):
        yield "student", "the Hugging Face folder of the smaller model, for stage sft"
    if asked.runs("reward") and not asked.runs("prepare", "sft"):
        for name, what in EARLIER.items():
            if not getattr(asked, name):
                yield name, what
    trained = asked.runs("sft", "ppo") or asked.checkpoint
    if asked.runs("evaluate") and not (asked.models or trained or asked.teacher or asked.student):
        yield "models", "at least one Hugging Face folder to evaluate"
