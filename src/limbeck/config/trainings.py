"""Settings of the three trainings."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from limbeck.config.engines import DeepSpeedConfig
from limbeck.section import Count, Positive, Probability, Section, micro_batch

TRAIN_STAGES = ("sft", "reward", "ppo")
"""What may train in several processes, and on several nodes."""
PpoReward = Literal["model", "agreement", "mixed", "judge"]
BY_AGREEMENT: tuple[PpoReward, ...] = ("agreement", "mixed")
"""What looks at agreement with the pseudo label, of which open questions have none."""
Algorithm = Literal["ppo", "rloo", "grpo"]
PPO_ALONE = ("adaptive_kl", "whiten_rewards")
"""What no other algorithm does, and would be missed: refused. Settings of the critic are not asked then."""


def rows_of_one(batch_size: int, deepspeed: DeepSpeedConfig) -> int:
    """Rows of an update that one process makes, as far as the settings tell how many there are.

    Raises:
        ValueError: when the processes cannot share the batch evenly.
    """
    number = deepspeed.nodes * (deepspeed.processes or 1)
    if batch_size % number:
        raise ValueError(f"the {batch_size} rows of an update must be a multiple of the {number} processes")
    return batch_size // number


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
    packing: bool = False
    """Lay the completions of a forward pass one behind another in rows of up to `max_length` tokens, each
    blind to its neighbours: less padding, the same losses up to rounding. Attention must be the usual one."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """How DeepSpeed holds the student."""

    @property
    def rows_at_once(self) -> int:
        """Completions in one forward pass of one process."""
        return micro_batch(rows_of_one(self.batch_size, self.deepspeed), self.micro_batch_size)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        micro_batch(rows_of_one(self.batch_size, self.deepspeed), self.micro_batch_size)
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
    packing: bool = False
    """Lay the completions of a forward pass one behind another, as `sft.packing` does: less padding, the same
    losses up to rounding. Attention must be the usual one."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """How DeepSpeed holds the reward model."""

    @property
    def rows_at_once(self) -> int:
        """Completions or pairs in one forward pass of one process."""
        return micro_batch(rows_of_one(self.batch_size, self.deepspeed), self.micro_batch_size)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.rows_at_once % 2:
            raise ValueError("a forward pass must have an even number of rows: half from each source")
        return self


class PpoConfig(Section):
    """Reinforcement learning of the student, in cleanrl's names."""

    algorithm: Algorithm = "ppo"
    """`ppo` has a critic; `rloo` and `grpo` compare the answers to one prompt instead (docs/rl.md)."""
    num_updates: Count = 200
    """Rollout-and-update rounds."""
    batch_size: Count = 256
    """Rollouts of one round."""
    samples_per_prompt: Count = 1
    """Rollouts of one prompt in a round; `rloo` and `grpo` need at least 2, and gain from more."""
    temperature: Positive = 1.0
    """Sampling temperature of rollouts; the loss is on-policy only at 1."""
    max_tokens: Count = 512
    """Longest rollout, in tokens."""
    learning_rate: Positive = 1e-6
    """AdamW rate of the policy; linear decay to zero over the updates when `anneal_lr`."""
    value_learning_rate: Positive = 1e-5
    """AdamW rate of the critic; of `ppo` alone."""
    anneal_lr: bool = True
    """Decay the rates linearly to zero: `ppo` round by round, `rloo` and `grpo` update by update."""
    num_ppo_epochs: Count = 2
    """Passes over one round's rollouts."""
    num_minibatches: Count = 4
    """Updates in one pass."""
    micro_batch_size: Count | None = 8
    """Rollouts in one forward pass, null: all of an update; gradients are accumulated."""
    forward_batch_size: Count | None = None
    """Rollouts in one forward pass that needs no gradients, and so far less memory, as the reference's; null:
    as many as in the others. Of `ppo` alone."""
    packing: bool = False
    """Lay the rollouts of a forward pass one behind another, as `sft.packing` does."""
    score_batch_size: Count | None = None
    """Rollouts that the reward model scores together, while later ones are still sampled; null: all of a
    process, after the last one. It changes scores by rounding alone."""
    sampler: Literal["vllm", "transformers"] = "vllm"
    """What samples rollouts: vLLM, or the forward pass of transformers, `engine.max_num_seqs` at once until
    all have ended. The latter is for models so small that vLLM's scheduling takes longer than they do."""
    old_logprobs: Literal["trainer", "engine"] = "trainer"
    """Who tells the log-probabilities under the policy that sampled: a forward pass of the trainer, or the
    sampler, which saves that pass; vLLM rounds in its own way. Of `ppo` and `rloo`, at temperature 1."""
    gpu_memory_utilization: Probability = 0.2
    """Share of a GPU's memory for vLLM's weights and cache; the rest is for the models in training."""
    judge_gpu_memory_utilization: Probability = 0.3
    """The same for the teacher where it is the reward (`judge`) and vLLM runs it. 0.3 of 80 GiB hold
    8 billion weights in bfloat16 and some gigabytes of cache: a verdict is one token."""
    clip_coef: Positive = 0.2
    """Clip range of the probability ratio: of a token, with `rloo` of a whole completion."""
    clip_vloss: bool = True
    """Clip the value loss as well; of `ppo` alone."""
    vf_clip_coef: Positive = 0.2
    """Clip range of the value; of `ppo` alone."""
    vf_coef: Positive = 0.5
    """Weight of the value loss, of `ppo` alone. The critic is a model of its own, so it scales its rate."""
    gamma: Probability = 1.0
    """Discount per token; of `ppo` alone."""
    gae_lambda: Probability = 0.95
    """Lambda of generalized advantage estimation; of `ppo` alone."""
    norm_adv: bool = True
    """Normalise advantages over the round; with `grpo` those of each prompt, by their standard deviation."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    kl_coef: Annotated[float, Field(ge=0.0)] = 0.05
    """Weight of the KL penalty to the warmed-up student per nat: in the reward, of each token (`ppo`) or of
    the completion (`rloo`), or in the loss of each token (`grpo`)."""
    adaptive_kl: bool = False
    """Move `kl_coef` so that the KL of a completion stays near `target_kl`; `ppo` alone takes it."""
    target_kl: Positive = 6.0
    """KL of a completion, in nats, that the adaptive controller of `ppo` aims at. With `task.kind: open` a
    policy beyond it is not kept, whatever the algorithm."""
    whiten_rewards: bool = False
    """Scale scores of a round to unit variance before the KL penalty; `ppo` alone takes it."""
    missing_eos_penalty: Annotated[float, Field(ge=0.0)] = 1.0
    """Taken off the score of a rollout that was cut at `max_tokens`."""
    critic_warmup_updates: Annotated[int, Field(ge=0)] = 10
    """First rounds in which only the critic learns; of `ppo` alone."""
    value_init: Literal["reward", "student"] = "reward"
    """Which weights the critic starts from; of `ppo` alone."""
    evaluate_every: Count = 20
    """Rounds between measurements of agreement on the validation prompts."""
    validation_samples: Count = 2
    """Samples of each validation prompt in one measurement, at temperature 1."""
    stop_on_hacking: bool = True
    """Stop when the proxy reward rises while agreement falls by more than `hacking_drop`, both on the
    validation prompts. With `task.kind: open` nothing can agree, and nothing is stopped."""
    hacking_drop: Probability = 0.1
    """Fall of validation agreement below its best that stops the run, if the proxy is higher than then.
    0.1 is about three standard errors of a share of 200 prompts."""
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """How DeepSpeed holds policy and critic."""

    @property
    def rows_at_once(self) -> int:
        """Rollouts in one forward pass of one process."""
        rows = rows_of_one(self.batch_size // self.num_minibatches, self.deepspeed)
        return micro_batch(rows, self.micro_batch_size)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.num_minibatches:
            raise ValueError("batch_size must be a multiple of num_minibatches")
        if self.batch_size % self.samples_per_prompt:
            raise ValueError("batch_size must be a multiple of samples_per_prompt")
        micro_batch(
            rows_of_one(self.batch_size // self.num_minibatches, self.deepspeed), self.micro_batch_size
        )
        return self

    @model_validator(mode="after")
    def _suits_the_algorithm(self) -> Self:
        if self.old_logprobs == "engine" and (self.algorithm == "grpo" or self.temperature != 1):
            raise ValueError("old_logprobs must be trainer unless temperature is 1 and algorithm ppo or rloo")
        if self.algorithm == "ppo":
            return self
        if self.samples_per_prompt < 2:
            raise ValueError(
                f"samples_per_prompt must be at least 2: {self.algorithm} compares the answers to one prompt"
            )
        if self.deepspeed.nodes * (self.deepspeed.processes or 1) > 1:
            raise ValueError(
                f"deepspeed.processes and nodes must be 1: {self.algorithm} trains in one process"
            )
        for name in PPO_ALONE:
            if getattr(self, name):
                raise ValueError(f"{name} must be false: algorithm {self.algorithm} does not do it")
        return self
