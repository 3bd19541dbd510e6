"""Every setting of the stages, checked whole before anything starts.

This is what the pipeline parameter `config` holds; its sections are named after the stages that read
them. The other parameters are in `limbeck.run_file`. This package imports nothing heavy, so a typing
error costs no GPU second.
"""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from limbeck.config.engines import (
    GPU_STAGES,
    WIDTH,
    Chat,
    DeepSpeedConfig,
    Dtype,
    EngineConfig,
    ModelConfig,
    OpenAIConfig,
    TeacherConfig,
)
from limbeck.config.rows import (
    EvaluateConfig,
    FieldsConfig,
    GenerateConfig,
    JudgeConfig,
    LabelConfig,
    PrepareConfig,
    Preset,
    SamplingConfig,
    TaskConfig,
)
from limbeck.config.trainings import (
    BY_AGREEMENT,
    TRAIN_STAGES,
    Algorithm,
    PpoConfig,
    PpoReward,
    RewardConfig,
    SftConfig,
)
from limbeck.errors import ConfigError
from limbeck.section import Count, Positive, Section, parse
from limbeck.variants import varied

__all__ = [
    "BY_AGREEMENT",
    "GPU_STAGES",
    "TRAIN_STAGES",
    "WIDTH",
    "Algorithm",
    "Chat",
    "Config",
    "DeepSpeedConfig",
    "Dtype",
    "EngineConfig",
    "EvaluateConfig",
    "FieldsConfig",
    "GenerateConfig",
    "JudgeConfig",
    "LabelConfig",
    "ModelConfig",
    "OpenAIConfig",
    "PpoConfig",
    "PpoReward",
    "PrepareConfig",
    "Preset",
    "ReportConfig",
    "RewardConfig",
    "SamplingConfig",
    "SftConfig",
    "TaskConfig",
    "TeacherConfig",
    "parse_config",
]


class ReportConfig(Section):
    """The report and the decision."""

    num_resamples: Count = 2000
    """Bootstrap resamples of each interval."""
    num_examples: Annotated[int, Field(ge=0)] = 8
    """Held-out prompts shown in the page, and worst disagreements of each kind in the label report."""
    price_per_million_tokens: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    """What a million completion tokens cost, by the report's row, such as {teacher: 10, policy: 0.4}; in the
    currency that you think in. It compares what an answer of each row costs; what the run has paid for a
    black-box teacher follows from the section `openai`, whose `completion_price` its row has unless it is
    named here. Rows without a price are told in tokens."""
    gpu: str = "H100"
    """The kind of GPU that the run is planned for: a name in the table of `limbeck plan` (docs/plan.md)."""


class Config(Section):
    """All settings of a run; one section a stage."""

    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of everything that is drawn."""
    restarts: Annotated[int, Field(ge=0, le=20)] = 3
    """How often a crashed stage on a GPU starts again in its container; two crashes alike end it sooner."""
    restart_seconds: Positive = 5.0
    """Wait before the first restart; each further one waits twice as long."""
    teacher: TeacherConfig = TeacherConfig()
    """The larger model: answers and judges."""
    student: ModelConfig = ModelConfig()
    """The smaller model: is trained."""
    task: TaskConfig = TaskConfig()
    """What is asked and how an answer is read."""
    engine: EngineConfig = EngineConfig()
    """The vLLM engine."""
    openai: OpenAIConfig = OpenAIConfig()
    """The server of a teacher with `sampler: openai`."""
    prepare: PrepareConfig = PrepareConfig()
    """Reading and splitting the data set."""
    generate: GenerateConfig = GenerateConfig()
    """Answers of teacher and student."""
    judge: JudgeConfig = JudgeConfig()
    """The teacher judges its own answers."""
    label: LabelConfig = LabelConfig()
    """From judged answers to pseudo labels."""
    sft: SftConfig = SftConfig()
    """Warm-up of the student."""
    reward: RewardConfig = RewardConfig()
    """The reward model."""
    ppo: PpoConfig = PpoConfig()
    """Reinforcement learning."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Held-out accuracy."""
    report: ReportConfig = ReportConfig()
    """The report and the decision."""

    @model_validator(mode="after")
    def _fits_a_black_box(self) -> Self:
        if self.teacher.sampler == "openai":
            if not self.openai.base_url:
                raise ValueError("openai.base_url must name the server where teacher.sampler is `openai`")
            if self.reward.init == "teacher":
                raise ValueError(
                    "reward.init must be `student` where teacher.sampler is `openai`: that gives no weights"
                )
        return self

    @model_validator(mode="after")
    def _judges_open_answers(self) -> Self:
        if not self.task.is_open:
            return self
        if self.label.rule != "judge":
            raise ValueError(
                f"label.rule must be `judge` where task.kind is `open`, not `{self.label.rule}`: no two "
                "answers are the same, so none can win a vote"
            )
        if self.label.calibrate != "none":
            raise ValueError(
                "label.calibrate must be `none` where task.kind is `open`: there is no vote to calibrate by"
            )
        if self.judge.template != JudgeConfig().template:
            raise ValueError(
                "judge.template is not read where task.kind is `open`: set judge.open_template instead"
            )
        return self

    @property
    def judge_template(self) -> str:
        """What the judge is asked: whether an answer is correct or, of an open question, good."""
        return self.judge.open_template if self.task.is_open else self.judge.template

    def model(self, name: str) -> ModelConfig:
        """How the teacher is loaded, or any other model: all others come from the student."""
        return self.teacher if name == "teacher" else self.student

    def chat(self, name: str) -> Chat:
        """How the teacher, or any other model, is asked the questions of the task."""
        thinking = self.model(name).enable_thinking
        return Chat(self.task.system_prompt, thinking, self.task.strip_thinking)

    def asks_a_server(self, name: str) -> bool:
        """Whether a model is a black box, which only the teacher may be."""
        return name == "teacher" and self.teacher.sampler == "openai"


def parse_config(values: dict[str, Any], variant: str = "") -> Config:
    """Check the `config` parameter of a component (JSON from Kubeflow; its ints arrive as floats).

    Args:
        values: The parameter.
        variant: What an ablation changes in it: see `limbeck.variants`.

    Raises:
        ConfigError: when it does not fit, or a variant changes where a training is computed: that decides no
            result, and what starts, checks and ends a run's trainings knows one place for all.
    """
    config = parse(Config, varied(values, variant), f"config with {variant}" if variant else "config")
    if not variant:
        return config
    whole = parse(Config, values, "config")
    for stage in TRAIN_STAGES:
        mine, other = (getattr(settings, stage).deepspeed for settings in (config, whole))
        if (mine.nodes, mine.processes) != (other.nodes, other.processes):
            raise ConfigError(
                "a variant with nodes or processes of its own",
                where=f"config with {variant}",
                expected="settings that decide a result",
                got=f"{stage}.deepspeed: {mine.nodes} nodes, processes {mine.processes}",
                remedy=f"Set config.{stage}.deepspeed, for the run and all its variants",
            )
    return config
