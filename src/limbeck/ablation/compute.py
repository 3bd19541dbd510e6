"""How long SFT alone must train to cost what the whole method does: pure formulas.

All rows are taken to be of one length, as they are prompts and answers of one task; so tokens are counted
in rows. What is recomputed to save memory does not count, nor do label votes and evaluations.
"""

from dataclasses import dataclass

from limbeck.config import WIDTH, Config
from limbeck.manifest import Manifest


@dataclass(frozen=True)
class Counts:
    """What the stages did, in rows and parameters."""

    student: int
    """Parameters of the student."""
    scorer: int
    """Parameters of the reward model."""
    critic: int
    """Parameters of the critic; 0 of an algorithm without one."""
    sft_rows: int
    """Completions in one epoch of SFT."""
    sft_epochs: float
    student_rows: int
    """Completions that the student sampled for the reward model."""
    reward_rows: int
    """In one epoch of the reward model."""
    reward_epochs: float
    rollouts: int
    """Of all rounds of PPO."""
    ppo_epochs: int
    """Passes over each round's rollouts."""
    checked: int
    """Completions of validation prompts that PPO samples and scores."""


def forward(parameters: int, rows: float) -> float:
    """FLOPs of a forward pass, or of sampling: 2 N a token.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1.
    """
    return 2.0 * parameters * rows


def training(parameters: int, rows: float) -> float:
    """FLOPs of a training pass: 6 N a token, 2 of them forward.

    Source: as above.
    """
    return 6.0 * parameters * rows


def sft_flops(counts: Counts) -> float:
    """FLOPs of the SFT warm-up for each token of a row."""
    return training(counts.student, counts.sft_rows * counts.sft_epochs)


def reward_flops(counts: Counts) -> float:
    """FLOPs of the reward model: the student's completions, then its training."""
    trained = training(counts.scorer, counts.reward_rows * counts.reward_epochs)
    return forward(counts.student, counts.student_rows) + trained


def ppo_flops(counts: Counts) -> float:
    """FLOPs of PPO: policy (to sample, then to score), reference, scorer and critic see each rollout once.

    Policy and critic then learn from it in each epoch; validation completions are sampled and scored.
    """
    seen = 3 * counts.student + counts.scorer + counts.critic
    learning = training(counts.student + counts.critic, counts.rollouts * counts.ppo_epochs)
    return forward(seen, counts.rollouts) + learning + forward(counts.student + counts.scorer, counts.checked)


def equal_epochs(counts: Counts) -> float:
    """Epochs at which SFT alone takes the FLOPs of SFT, reward model and PPO together."""
    whole = sft_flops(counts) + reward_flops(counts) + ppo_flops(counts)
    return counts.sft_epochs * whole / sft_flops(counts)


def counted(
    warmed_up: Manifest, student_labelled: Manifest, reward_model: Manifest, policy: Manifest, config: Config
) -> Counts:
    """What finished stages did.

    Args:
        warmed_up: The student from `sft`.
        student_labelled: Its completions from `label`.
        reward_model: From `reward`.
        policy: From `ppo`.
        config: `sft`, `reward`, `ppo` and the number types of both models are read.
    """
    ppo = config.ppo
    student = _weights(warmed_up) // WIDTH[config.student.dtype]
    scorer = _weights(reward_model) // WIDTH[config.model(config.reward.init).dtype]
    updates = int(policy.metrics.get("ppo/num_updates", ppo.num_updates))
    validation = policy.num_input_rows - policy.num_rows - sum(policy.rejected.values())
    checks = updates // ppo.evaluate_every + 1 + bool(updates % ppo.evaluate_every)
    critic = {"reward": scorer, "student": student}[ppo.value_init] if ppo.algorithm == "ppo" else 0
    return Counts(
        student=student,
        scorer=scorer,
        critic=critic,
        sft_rows=warmed_up.num_rows,
        sft_epochs=config.sft.num_epochs,
        student_rows=student_labelled.num_input_rows,
        reward_rows=reward_model.num_rows,
        reward_epochs=config.reward.num_epochs,
        rollouts=updates * ppo.batch_size,
        ppo_epochs=ppo.num_ppo_epochs,
        checked=checks * max(0, validation) * ppo.validation_samples,
    )


def _weights(checkpoint: Manifest) -> int:
    """Bytes of a checkpoint's weights."""
    return sum(item.bytes for item in checkpoint.objects if item.uri.endswith(".safetensors"))
