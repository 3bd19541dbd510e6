"""How far a run of reinforcement learning has come, and which policy is kept: alike for all algorithms."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from limbeck.config import PpoConfig
from limbeck.hacking import hacked, probes
from limbeck.jobs import Course
from limbeck.progress import say
from limbeck.trainer import ranks
from limbeck.trainer.networks import save_checkpoint
from limbeck.trainer.rollouts import Validation

COURSE, BEST = "course.json", "best"


def choose(
    measured: Validation,
    policy: Any,
    tokenizer: Any,
    course: Course,
    best_folder: Path,
    settings: PpoConfig,
    name: str,
) -> None:
    """Keep the policy if it agrees best so far; stop the run if it games the reward model. All ranks call it.

    Hacking is when the proxy reward has risen while agreement has fallen by more than `hacking_drop`: the
    reward model likes what the labels do not. See `limbeck.hacking`.

    Of open questions nothing can agree, and the proxy must not choose: it is what the policy is trained to
    please. The newest policy is kept that has not left the warmed-up student by more than `target_kl`, since
    a proxy is worth less the further a policy goes (Gao et al. 2022, arXiv 2210.10760); the rule is ours.
    """
    entry = {"ppo/validation_proxy": measured.proxy, "ppo/validation_length": measured.length}
    if measured.agreement is None:
        kl = _kl(course)
        keep = not kl > settings.target_kl  # also where none is measured
        agreement = f"KL {kl:.2f} (at most {settings.target_kl:g}{'' if keep else ': not kept'})"
    else:
        entry["ppo/validation_agreement"] = measured.agreement
        if course.update == 0:
            course.start_agreement = measured.agreement
        keep = measured.agreement > course.best_agreement
        course.best_agreement = max(course.best_agreement, measured.agreement)
        agreement = f"validation agreement {measured.agreement:.3f} (best {course.best_agreement:.3f})"
    if keep:
        course.best_update = course.update
        if ranks.first_on_node():
            shutil.rmtree(best_folder, ignore_errors=True)  # states hold links to its files
        save_checkpoint(policy, tokenizer, best_folder)
    if not course.history:
        course.history.append({"update": 0.0})
    course.history[-1] |= entry
    say(
        f"{name}: update {course.update}: {agreement}, proxy reward {measured.proxy:.3f}, "
        f"{measured.length:.1f} tokens"
    )
    signs = hacked(probes(course.history), settings.hacking_drop)
    if signs and settings.stop_on_hacking:
        course.stopped = True
        say(
            f"{name}: stopped at update {course.update}: {signs} (reward hacking); the policy of update "
            f"{course.best_update} is kept"
        )


def _kl(course: Course) -> float:
    """KL of a completion to the warmed-up student in the newest round, in nats; nan where it is not known."""
    if not course.history:
        return 0.0
    newest = course.history[-1]
    kl = newest.get("ppo/kl", math.nan)
    return newest.get("ppo/kl_k3", math.nan) if math.isnan(kl) else kl


def save_course(course: Course, best_folder: Path, state: Path) -> None:
    """Write the course into a training state, with links to the best policy so far."""
    shutil.copytree(best_folder, state / BEST, copy_function=os.link)
    (state / COURSE).write_text(json.dumps(vars(course)))


def load_course(state: Path, best_folder: Path) -> Course:
    """Read the course of a training state; its best policy goes into a folder."""
    if ranks.first_on_node():
        shutil.copytree(state / BEST, best_folder)
    return Course(**json.loads((state / COURSE).read_text()))
