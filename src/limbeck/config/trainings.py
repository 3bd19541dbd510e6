"""Settings of the three trainings."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from limbeck.config.engines import DeepSpeedConfig
from limbeck.section import Count, Positive, Probability, Section, micro_batch

PpoReward = Literal["model", "agreement", "mixed"]


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
    """Stop when the proxy reward rises while agreement falls by more than `hacking_drop`, both on the
    validation prompts."""
    hacking_drop: Probability = 0.1
    """Fall of validation agreement below its best that stops the run, if the proxy is higher than then.
    0.1 is about three standard errors of a share of 200 prompts."""
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
