"""Every setting of the stages, checked whole before anything starts.

This is what the pipeline parameter `config` holds; its sections are named after the stages that read
them. The other parameters are in `limbeck.run_file`. This module imports nothing heavy, so a typing
error costs no GPU second.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from limbeck.section import Count, Positive, Probability, Section, micro_batch, parse

Dtype = Literal["float32", "bfloat16"]
PpoReward = Literal["model", "agreement", "mixed"]


class TaskConfig(Section):
    """What is asked and how an answer is read. Shared by all stages."""

    prompt_template: str = "{prompt}"
    """The user message; `{prompt}` is replaced by the prompt."""
    answer_pattern: str = r"(?:####|answer is:?|=)\s*\$?(-?[\w.,/]*\w)"
    """Regular expression whose group 1 is the final answer; its last match in a completion counts."""
    case_sensitive: bool = False
    """Whether answers that differ in case alone are different answers."""

    @field_validator("prompt_template")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("must contain {prompt}")
        return value

    @field_validator("answer_pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"must be a regular expression: {error}") from error
        if groups < 1:
            raise ValueError("must have a group: the answer is group 1")
        return value


class ModelConfig(Section):
    """How one model is loaded. Where it lies is a parameter of the pipeline: `teacher`, `student`."""

    dtype: Dtype = "bfloat16"
    """Number type of the weights while sampling and training; float32 on CPUs."""
    trust_remote_code: bool = False
    """Whether code inside the checkpoint may run while sampling; training never runs it."""


class EngineConfig(Section):
    """The vLLM engine of `generate`, `judge`, `ppo` and `evaluate`."""

    max_model_len: Count = 2048
    """Longest prompt plus completion, in tokens; longer prompts are set aside."""
    max_num_seqs: Count = 256
    """How many sequences vLLM decodes at once."""
    gpu_memory_utilization: Probability = 0.9
    """Share of a GPU's memory for weights and cache."""
    kv_cache_mib: Count | None = None
    """Size of the KV cache in MiB instead of a share of all memory; wanted on CPUs."""
    enforce_eager: bool = False
    """Skip graph capture and compilation: a faster start, slower tokens."""
    tensor_parallel_size: Count = 1
    """Over how many GPUs one model is split."""
    checkpoint_in_memory: bool = False
    """Whether `generate`, `judge`, `evaluate` put the model into memory (/dev/shm), not onto the disk. It
    stays there while the engine runs: the task's memory must hold the weights once more."""
    max_restarts: Annotated[int, Field(ge=0)] = 30
    """How often one attempt of a stage starts a dead or stalled engine again. To find the one row that kills
    it takes about log2(2 x max_num_seqs) + 2 of them; that row is set aside, the rest go on."""
    stall_seconds: Positive = 300.0
    """An engine that has work but samples no token for so long is killed and started again."""
    gpu_memory_gib: Positive | None = None
    """Memory of one GPU in GiB; `preflight` then checks that models and contexts fit."""


class DeepSpeedConfig(Section):
    """How DeepSpeed holds a model that is trained."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What ZeRO splits over processes: nothing, optimizer, + gradients, + weights."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, a third more time."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of LoRA adapters; 0 trains all weights."""
    lora_alpha: Positive = 32.0
    """Scale of the adapters: their output counts alpha / rank."""
    nodes: Count = 1
    """Nodes of one training; this version trains on one, and refuses more."""
    checkpoint_seconds: Positive = 600.0
    """Time between saved training states; a killed trainer loses at most this much, and what it takes to
    upload one. SIGTERM saves one at once."""
    keep_states: Count = 2
    """Newest training states that stay in the object store; an unreadable one gives way to the one before."""


class PrepareConfig(Section):
    """Reading and splitting the data set."""

    heldout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Part of the prompts that is held out when no held-out data are given."""
    max_bad_fraction: Probability = 0.05
    """Share of broken rows above which the stage fails instead of setting them aside."""
    max_prompt_chars: Count = 20_000
    """Longer prompts are set aside."""


class SamplingConfig(Section):
    """How one model answers every prompt."""

    samples_per_prompt: Count = 10
    """Completions of each prompt, spread evenly over the temperatures. The paper's revised version: 10."""
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0.0, le=2.0)], ...], Field(min_length=1)] = (
        0.3,
        0.7,
        1.0,
    )
    """Sampling temperatures, recorded in every row."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: keep the most likely tokens of this total probability."""
    max_tokens: Count = 512
    """Longest completion, in tokens."""


class GenerateConfig(Section):
    """Answers of teacher and student."""

    teacher: SamplingConfig = SamplingConfig()
    """How the teacher answers."""
    student: SamplingConfig = SamplingConfig()
    """How the warmed-up student answers; the paper's revised version takes 30 samples."""
    rows_per_part: Count = 2000
    """Completions in one Parquet part. A killed stage loses at most so many finished ones, and of these only
    the last `commit_seconds`; judge and evaluate keep to both too."""
    commit_seconds: Positive = 60.0
    """Finished completions are stored at least this often, also where a part is not full yet."""
    max_bad_fraction: Probability = 0.05
    """Share of completions that may be set aside (their prompt is too long for the context, or they killed
    the engine) before the stage fails."""


class JudgeConfig(Section):
    """The teacher judges its own answers."""

    template: str = (
        "Question:\n{prompt}\n\nProposed answer:\n{completion}\n\n"
        "Is the proposed answer correct? Reply with one word, yes or no."
    )
    """The judge prompt; `{prompt}` and `{completion}` are replaced."""
    yes: str = "yes"
    """The word for correct; P(correct) = P(yes) / (P(yes) + P(no)) of the first token."""
    no: str = "no"
    """The word for wrong."""

    @field_validator("template")
    @classmethod
    def _holds_both(cls, value: str) -> str:
        if "{prompt}" not in value or "{completion}" not in value:
            raise ValueError("must contain {prompt} and {completion}")
        return value


class LabelConfig(Section):
    """From judged answers to one pseudo label a prompt."""

    rule: Literal["judged_majority", "majority", "judge"] = "judged_majority"
    """Vote among completions judged correct, among all, or take the best judged one."""
    min_p_correct: Probability = 0.5
    """A completion votes (judged_majority), or counts as good (judge), from this P(correct)."""
    min_vote_share: Probability = 0.3
    """A winner with a smaller share of the votes leaves the prompt unlabelled."""
    validation_prompts: Count = 200
    """Labelled prompts kept out of all training; the reward model is measured, and the policy's
    checkpoint chosen, on them. A student that had been warmed up on them would agree from the start."""


class SftConfig(Section):
    """Warm-up of the student on the teacher's completions."""

    learning_rate: Positive = 2e-5
    """Peak rate of AdamW; cosine decay to zero."""
    num_epochs: Positive = 2.0
    """Passes over the completions."""
    max_steps: int = -1
    """Stop after this many updates whatever the epochs say; -1: no bound."""
    batch_size: Count = 32
    """Completions in one update."""
    micro_batch_size: Count | None = 8
    """Completions in one forward pass, null: all; gradients are accumulated up to `batch_size`."""
    warmup_ratio: Probability = 0.03
    """Part of the updates in which the rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW's weight decay."""
    max_length: Count = 1024
    """Longest prompt plus completion, in tokens; longer ones are cut."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """How DeepSpeed holds the student."""

    @property
    def rows_at_once(self) -> int:
        """Completions in one forward pass."""
        return micro_batch(self.batch_size, self.micro_batch_size)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        micro_batch(self.batch_size, self.micro_batch_size)
        return self


class RewardConfig(Section):
    """The reward model."""

    init: Literal["student", "teacher"] = "student"
    """Which checkpoint it starts from: the warmed-up student, or the teacher (a stronger judge)."""
    loss: Literal["bce", "bradley_terry"] = "bce"
    """Binary cross-entropy on each completion, or Bradley-Terry on pairs of one prompt."""
    source_weight: Probability = 0.5
    """Lambda: weight of teacher rows in the loss; student rows weigh 1 - lambda."""
    learning_rate: Positive = 1e-5
    """Peak rate of AdamW; cosine decay to zero."""
    warmup_ratio: Probability = 0.03
    """Part of the updates in which the rate rises from zero."""
    num_epochs: Positive = 1.0
    """Passes over the rows."""
    batch_size: Count = 64
    """Completions (bce) or pairs (bradley_terry) in one update, half from each source."""
    micro_batch_size: Count | None = 8
    """How many of them in one forward pass, null: all; gradients are accumulated up to `batch_size`."""
    evaluate_every: Count = 100
    """Updates between evaluations; the weights of the best one are kept (early stopping)."""
    min_auc: Probability = 0.6
    """Gate: a reward model below this AUC on student completions stops the run."""
    max_length: Count = 1024
    """Longest prompt plus completion, in tokens; longer ones are cut."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """How DeepSpeed holds the reward model."""

    @property
    def rows_at_once(self) -> int:
        """Completions or pairs in one forward pass."""
        return micro_batch(self.batch_size, self.micro_batch_size)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if micro_batch(self.batch_size, self.micro_batch_size) % 2:
            raise ValueError("batch_size and micro_batch_size must be even: half from each source")
        return self


class PpoConfig(Section):
    """Reinforcement learning of the student, in cleanrl's names."""

    num_updates: Count = 200
    """Rollout-and-update rounds."""
    batch_size: Count = 256
    """Rollouts of one round."""
    samples_per_prompt: Count = 1
    """Rollouts of one prompt in a round."""
    temperature: Positive = 1.0
    """Sampling temperature of rollouts; the loss is on-policy only at 1."""
    max_tokens: Count = 512
    """Longest rollout, in tokens."""
    learning_rate: Positive = 1e-6
    """AdamW rate of the policy; linear decay to zero over the updates when `anneal_lr`."""
    value_learning_rate: Positive = 1e-5
    """AdamW rate of the critic."""
    anneal_lr: bool = True
    """Decay both rates linearly to zero."""
    num_ppo_epochs: Count = 2
    """Passes over one round's rollouts."""
    num_minibatches: Count = 4
    """Updates in one pass."""
    micro_batch_size: Count | None = 8
    """Rollouts in one forward pass, null: all of an update; gradients are accumulated."""
    gpu_memory_utilization: Probability = 0.2
    """Share of a GPU's memory for vLLM's weights and cache; the rest is for the models in training."""
    clip_coef: Positive = 0.2
    """Clip range of the probability ratio."""
    clip_vloss: bool = True
    """Clip the value loss as well."""
    vf_clip_coef: Positive = 0.2
    """Clip range of the value."""
    vf_coef: Positive = 0.5
    """Weight of the value loss. The critic is a model of its own, so it scales its rate alone."""
    gamma: Probability = 1.0
    """Discount per token."""
    gae_lambda: Probability = 0.95
    """Lambda of generalized advantage estimation."""
    norm_adv: bool = True
    """Normalise advantages over the round."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    kl_coef: Annotated[float, Field(ge=0.0)] = 0.05
    """Weight of the per-token KL penalty to the warmed-up student, in reward per nat."""
    adaptive_kl: bool = False
    """Move `kl_coef` so that the KL of a completion stays near `target_kl`."""
    target_kl: Positive = 6.0
    """KL of a completion, in nats, that the adaptive controller aims at."""
    whiten_rewards: bool = False
    """Scale scores of a round to unit variance before the KL penalty."""
    missing_eos_penalty: Annotated[float, Field(ge=0.0)] = 1.0
    """Taken off the score of a rollout that was cut at `max_tokens`."""
    critic_warmup_updates: Annotated[int, Field(ge=0)] = 10
    """First rounds in which only the critic learns."""
    value_init: Literal["reward", "student"] = "reward"
    """Which weights the critic starts from."""
    evaluate_every: Count = 20
    """Rounds between measurements of agreement on the validation prompts."""
    validation_samples: Count = 2
    """Samples of each validation prompt in one measurement, at temperature 1."""
    stop_on_hacking: bool = True
    """Stop when the proxy reward rises while agreement falls by more than `hacking_drop`."""
    hacking_drop: Probability = 0.1
    """Fall of validation agreement below its start that stops the run."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """How DeepSpeed holds policy and critic."""

    @property
    def rows_at_once(self) -> int:
        """Rollouts in one forward pass."""
        return micro_batch(self.batch_size // self.num_minibatches, self.micro_batch_size)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.num_minibatches:
            raise ValueError("batch_size must be a multiple of num_minibatches")
        if self.batch_size % self.samples_per_prompt:
            raise ValueError("batch_size must be a multiple of samples_per_prompt")
        micro_batch(self.batch_size // self.num_minibatches, self.micro_batch_size)
        return self


class EvaluateConfig(Section):
    """Held-out accuracy."""

    samples_per_prompt: Count = 4
    """Sampled completions of each prompt; greedy takes one."""
    temperature: Positive = 1.0
    """Temperature of the sampled decoding."""
    max_tokens: Count = 512
    """Longest completion, in tokens."""


class ReportConfig(Section):
    """The report and the decision."""

    num_resamples: Count = 2000
    """Bootstrap resamples of each interval."""
    num_examples: Annotated[int, Field(ge=0)] = 8
    """Held-out completions of the policy shown in the page."""


class Config(Section):
    """All settings of a run; one section a stage."""

    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of everything that is drawn."""
    restarts: Annotated[int, Field(ge=0, le=20)] = 3
    """How often a crashed stage on a GPU starts again in its container; two crashes alike end it sooner."""
    restart_seconds: Positive = 5.0
    """Wait before the first restart; each further one waits twice as long."""
    teacher: ModelConfig = ModelConfig()
    """The larger model: answers and judges."""
    student: ModelConfig = ModelConfig()
    """The smaller model: is trained."""
    task: TaskConfig = TaskConfig()
    """What is asked and how an answer is read."""
    engine: EngineConfig = EngineConfig()
    """The vLLM engine."""
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


def parse_config(values: dict[str, Any]) -> Config:
    """Check the `config` parameter of a component (JSON from Kubeflow; its ints arrive as floats)."""
    return parse(Config, values, "config")
