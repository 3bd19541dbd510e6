"""What a run file would find finished in its work_uri, and what has changed where it would not.

The key of an output hashes its inputs' content, the settings that decide it, and the code. Settings and code
are known beforehand; the content of what an earlier stage makes is known only where that is finished. The
tasks are those of `pipelines/wiring.py`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from limbeck import settings
from limbeck.checkpoints import identity
from limbeck.compiled import SHIPPED, Compiled, load
from limbeck.config import PpoReward
from limbeck.errors import ConfigError, DataError
from limbeck.inputs import check_inputs, data_files
from limbeck.judged_answers import ANSWERS
from limbeck.keys import uploaded_files
from limbeck.manifest import Manifest, code_version, digest, load_manifest, stage_uri
from limbeck.planning.making import outline_of
from limbeck.planning.page import plan_of_report
from limbeck.rollout_judge import lines_of
from limbeck.run_file import RunFile
from limbeck.sources import file_hash, folder_hash, locate
from limbeck.status import OUTPUTS, StageState, inspect
from limbeck.status_text import printable
from limbeck.storage import Store, StoredObject, sha256

Verdict = Literal["reused", "goes on", "runs", "not known"]
Given = Manifest | str | None
"""An input: a finished output, a hash, or None where an earlier stage must run first."""
ROW = "{:9}  {:24}  {}"


class Expected(NamedTuple):
    """What one task of a run would do."""

    task: str
    verdict: Verdict
    why: str


class Outlook:
    """Follows the tasks of a run, as far as their inputs are known; shards are one task with their merge."""

    def __init__(
        self, store: Store, run_file: RunFile, pipeline: Compiled, states: Iterable[StageState]
    ) -> None:
        """Look at nothing yet.

        Args:
            store: Where the results lie.
            run_file: All that a person set.
            pipeline: Which stages run.
            states: What `limbeck.status.inspect` found below the run file's work_uri.
        """
        self.store, self.run_file, self.config = store, run_file, run_file.config
        self.work_uri = run_file.work_uri.rstrip("/")
        self.pipeline, self.stages = pipeline, pipeline.stages
        # `distill_minimal` and `distill_open` take no choice of rewards: they have their own.
        chosen = "ppo_rewards" in pipeline.parameters
        own: tuple[PpoReward, ...] = ("model",) if pipeline.open_ended else ("model", "mixed")
        self.ppo_rewards = run_file.ppo_rewards if chosen else own
        newest_first = sorted(states, key=lambda state: state.modified, reverse=True)
        self.states = {state.uri: state for state in newest_first}
        self.tasks: list[Expected] = []
        self.results: list[str] = []
        """Content of each evaluation that the report takes, as far as they are finished."""
        self.report: Manifest | None = None
        """The finished one of this run."""
        self.judge: str | None = None
        self.prompts: Given = None
        self.heldout: Given = None
        self.gold: Given = None

    def follow(self) -> list[Expected]:
        """All tasks in order.

        Raises:
            ConfigError: when a local file or folder of the run file is not there.
            DataError: when a finished stage that it names is of another kind.
            StorageError: when the store cannot be used.
        """
        check_inputs(self.run_file)
        teacher, student = self._teacher(), self._model(self.run_file.student)
        self.judge = self._sampled("teacher", teacher, judges=True)
        self._prepare()
        if "judge" in self.stages:
            labels, labelled = self._teacher_side(teacher)
            selected = self._warm_up("selected", labelled, student)
            self._warm_up("all", labelled, student)
            self._evaluate("teacher", teacher, "teacher")
            self._evaluate("student", student)
        elif "ppo" in self.stages:
            labels, labelled = (self._finished(self.run_file.label_uri, kind) for kind in OUTPUTS["label"])
            selected = self._finished(self.run_file.checkpoint, "checkpoint")
            selected = selected or self._model(self.run_file.checkpoint)
        else:
            for path in self.run_file.models:
                name = path.rstrip("/").rpartition("/")[2]
                self._evaluate(name, self._model(path))
        if "ppo" in self.stages:
            self._rewards(labels, labelled, selected, teacher)
        self._report()
        return self.tasks

    def _prepare(self) -> None:
        kinds = OUTPUTS["prepare"]
        if "prepare" in self.stages:
            data = {"prompts": self.run_file.prompts, "heldout": self.run_file.heldout}
            files = {name: self._data(path) for name, path in data.items() if path}
            hashed = settings.of_prepare(self.config)
            made: Mapping[str, Given] = self._task("prepare", "prepare", hashed, files, kinds, kinds)
        else:
            made = {kind: self._finished(self.run_file.prepared_uri, kind) for kind in kinds}
        self.prompts, self.heldout, self.gold = (made.get(kind) for kind in kinds)

    def _teacher_side(self, teacher: Given) -> tuple[Given, Given]:
        """The teacher answers, judges and votes: its labels, and its labelled completions."""
        answers = self._generate("teacher", teacher)
        judgements = self._judged("judge", answers)
        given = {"prompts": self.prompts, "completions.0": answers}
        if self.config.label.rule == "gold":
            given["gold"] = self.gold
        made = self._task(
            "label teacher",
            "label",
            settings.of_label(self.config),
            given | {"judgements.0": judgements},
            ("labels_teacher", "labelled_teacher"),
            OUTPUTS["label"],
        )
        return made.get("labels"), made.get("labelled")

    def _judged(self, task: str, answers: Given) -> Given:
        given = {"prompts": self.prompts, "completions": answers, "model": self.judge}
        return self._one(task, "judge", settings.of_judge(self.config), given, "judge")

    def _warm_up(self, selection: str, labelled: Given, student: Given) -> Given:
        name, hashed = f"sft_{selection}", settings.of_sft(self.config, selection)
        given = {"labelled": labelled, "student": student}
        checkpoint = self._one(f"sft {selection}", "sft", hashed, given, name)
        self._evaluate(name, checkpoint)
        return checkpoint

    def _rewards(self, labels: Given, labelled: Given, student: Given, teacher: Given) -> None:
        """The student answers, a reward model learns, and PPO refines the student."""
        answers = self._generate("student", student)
        given = {"prompts": self.prompts, "completions.0": answers, "given_labels": labels}
        if self.config.task.is_open:
            given["judgements.0"] = self._judged("judge student", answers)
        hashed = settings.of_label(self.config)
        made = self._task("label student", "label", hashed, given, ["labelled_student"], ["labelled"])
        given = {"teacher_labelled": labelled, "student_labelled": made.get("labelled")}
        given["base"] = teacher if self.config.reward.init == "teacher" else student
        reward_model = self._one("reward", "reward", settings.of_reward(self.config), given, "reward")
        for kind in self.ppo_rewards:
            given = {"prompts": self.prompts, "labels": labels}
            given |= {"checkpoint": student, "reward_model": reward_model}
            if kind == "judge":
                given["teacher"] = self.judge
                if isinstance(labels, Manifest) and (lines := lines_of(labels, self.config)):
                    given["calibration"] = digest(lines)
            hashed = settings.of_ppo(self.config, kind)
            policy = self._one(f"ppo {kind}", "ppo", hashed, given, f"ppo_{kind}")
            self._evaluate(f"ppo_{kind}", policy)

    def _generate(self, role: Literal["teacher", "student"], base: Given) -> Given:
        given = {"prompts": self.prompts, "model": self._sampled(role, base)}
        return self._one(f"generate {role}", "generate", settings.of_generate(self.config, role), given, role)

    def _evaluate(self, name: str, base: Given, role: str = "student") -> None:
        given = {"heldout": self.heldout, "gold": self.gold, "model": self._sampled(role, base)}
        hashed = settings.of_evaluate(self.config, name)
        answers = self._one(f"evaluate {name}", "evaluate", hashed, given, name)
        if self.config.task.is_open:
            key = answers.uri.rpartition("/")[2] if answers else None
            given = {"heldout": self.heldout, ANSWERS: key, "judge": self.judge}
            hashed = settings.of_judged_answers(self.config)
            answers = self._one(f"evaluate {name}, judge", "evaluate", hashed, given, name)
        if answers:
            self.results.append(answers.content_hash)

    def _report(self) -> None:
        """Its inputs are known when all that comes before is finished."""
        hashed, code = settings.of_report(self.config), code_version("report")
        if unfinished := [task.task for task in self.tasks if task.verdict != "reused"]:
            self._task("report", "report", hashed, {unfinished[0]: None}, ["report"])
            return
        contents = {state.manifest.content_hash for state in self.states.values() if state.manifest}
        for made in self._earlier("report", ["report"]):
            inputs = {name: content for name, content in made.inputs.items() if name != "plan"}
            results = [content for name, content in inputs.items() if name.startswith("results.")]
            inputs_are_those = (
                contents.issuperset(inputs.values())
                and Counter(results) == Counter(self.results)
                and made.inputs.get("plan") in (None, self._plan())
            )
            if inputs_are_those and (made.config_hash, made.code_version) == (hashed, code):
                address = made.uri.removeprefix(f"{self.work_uri}/")
                self.tasks.append(Expected("report", "reused", address))
                self.report = made
                return
        why = _changed({}, hashed, code, self._earlier("report", ["report"]))
        self.tasks.append(Expected("report", "runs", why))

    @cache  # noqa: B019 - an outlook lives for one question
    def _plan(self) -> str:
        """The plan that the report's page would show; empty where none can be made here."""
        prompts, heldout = (
            item if isinstance(item, Manifest) else None for item in (self.prompts, self.heldout)
        )
        if heldout is None:
            return ""
        try:
            outlined = outline_of(self.run_file, self.pipeline)
        except (ConfigError, DataError):
            return ""
        return digest(plan_of_report(outlined, prompts, heldout, self.config, self.store).model_dump())

    def _one(
        self, task: str, stage: str, config_hash: str, inputs: Mapping[str, Given], name: str
    ) -> Manifest | None:
        """A task with one output."""
        return self._task(task, stage, config_hash, inputs, [name]).get("")

    def _task(
        self,
        task: str,
        stage: str,
        config_hash: str,
        inputs: Mapping[str, Given],
        names: Sequence[str],
        outputs: Sequence[str] = ("",),
    ) -> dict[str, Manifest]:
        """Add one task; its outputs, where all of them are finished."""
        hashes = {name: _hash(value) for name, value in inputs.items()}
        known = {name: value for name, value in hashes.items() if value is not None}
        code, earlier = code_version(stage), self._earlier(stage, names)
        if len(known) < len(hashes):
            waits = list(dict.fromkeys(name.partition(".")[0] for name in hashes if name not in known))
            self.tasks.append(Expected(task, *_foreseen(waits, known, config_hash, code, earlier)))
            return {}
        uri = stage_uri(self.work_uri, stage, known, config_hash)
        address = uri.removeprefix(f"{self.work_uri}/")
        there = [state for name in outputs if (state := self.states.get(f"{uri}/{name}" if name else uri))]
        made = {
            state.output: state.manifest for state in there if state.state == "complete" and state.manifest
        }
        if len(made) == len(outputs):
            self.tasks.append(Expected(task, "reused", address))
            return made
        if broken := next((state for state in there if state.state == "broken"), None):
            self.tasks.append(Expected(task, "runs", f"{address} is broken: {broken.reason}"))
        elif going := next((state for state in there if state.state == "in progress"), None):
            done = f"{going.num_parts} finished parts" if going.step is None else f"step {going.step}"
            if going.loose_rows:
                done += f" and up to {going.loose_rows:,} rows"
            self.tasks.append(Expected(task, "goes on", f"{address}, {done}"))
        else:
            self.tasks.append(Expected(task, "runs", _changed(known, config_hash, code, earlier)))
        return {}

    def _earlier(self, stage: str, names: Sequence[str]) -> list[Manifest]:
        """What earlier runs made in this place, newest first."""
        complete = [state for state in self.states.values() if state.state == "complete"]
        made = [state.manifest for state in complete if state.stage == stage and state.manifest]
        return [manifest for manifest in made if manifest.name in names]

    def _finished(self, uri: str, kind: str) -> Manifest | None:
        return load_manifest(self.store, uri, kind) if "://" in uri else None

    def _data(self, path: str) -> str:
        """What `prepare` takes for a data set: a local one as `limbeck run` would upload it."""
        if "://" in path:
            return locate(path, self.store, self.config.prepare).content_hash
        local = Path(path).expanduser()
        files = [
            StoredObject(uri=file.as_posix(), bytes=file.stat().st_size, sha256=sha256(file))
            for file in data_files(local)
        ]
        return folder_hash(files, local.as_posix()) if local.is_dir() else file_hash(files[0])

    def _teacher(self) -> str | None:
        """What stages take for the teacher."""
        if self.config.asks_a_server("teacher"):
            return settings.of_black_box(self.config, self.run_file.teacher)
        return self._model(self.run_file.teacher)

    def _sampled(self, role: str, base: Given, *, judges: bool = False) -> str | None:
        """What stands for a model that is sampled from, as in `limbeck.tasks.sampled`."""
        content, loading = _hash(base), self.config.model(role)
        if content is None or self.config.asks_a_server(role):
            return content
        return settings.of_engine(content, loading.dtype, False if judges else loading.enable_thinking)

    def _model(self, path: str) -> str | None:
        """What stages take for a model: a local one as `limbeck run` would upload it."""
        if not path or "://" in path:
            return identity(self.store, path) if path else None
        folder = Path(path).expanduser()
        files = {file.relative_to(folder).as_posix(): file for file in uploaded_files(folder)}
        content = hashlib.sha256()
        for name, file in files.items():  # as `Store.write_folder` names it
            content.update(f"{name} {sha256(file)}\n".encode())
        base = f"{self.work_uri}/inputs/{content.hexdigest()[:16]}/{folder.name or folder.resolve().name}"
        return digest([base, {f"{base}/{name}": file.stat().st_size for name, file in files.items()}])


def finished_report(store: Store, run_file: RunFile, pipeline: Path) -> Manifest | None:
    """The report of a run that has nothing left to do; None where something is, or where that is not known.

    Each output is looked at as its task would: the manifest of these inputs, settings and code, and the
    objects that it lists. It takes one listing instead of a process for each task.

    Args:
        store: Where the results lie.
        run_file: All that a person set, with inputs in the store or here.
        pipeline: The file that would run; of those that are not shipped, and of `ablation`, nothing is known.
    """
    if pipeline not in SHIPPED.values() or pipeline == SHIPPED["ablation"]:
        return None
    states = inspect(store, run_file.work_uri).stages
    if not any(state.stage == "report" and state.state == "complete" for state in states):
        return None
    outlook = Outlook(store, run_file, load(pipeline), states)
    if any(task.verdict != "reused" for task in outlook.follow()):
        return None
    return outlook.report


def text(tasks: Sequence[Expected], name: str) -> str:
    """The page for people.

    Args:
        tasks: What `Outlook.follow` gave.
        name: The run file's.
    """
    reused = sum(task.verdict == "reused" for task in tasks)
    lines = [f"{name}: {reused} of {len(tasks)} tasks are finished already", ""]
    lines += [ROW.format(task.verdict, task.task, task.why) for task in tasks]
    return "\n".join(map(printable, lines))


def as_json(tasks: Sequence[Expected]) -> str:
    """The same for machines, in ASCII."""
    return json.dumps([task._asdict() for task in tasks], indent=1)


def _hash(value: Given) -> str | None:
    return value.content_hash if isinstance(value, Manifest) else value


def _foreseen(
    waits: Sequence[str], known: Mapping[str, str], config_hash: str, code: str, earlier: Sequence[Manifest]
) -> tuple[Verdict, str]:
    """What can be said while some inputs are not known."""
    until = f"its {', '.join(waits)} must be made first"
    for made in earlier:
        if not _differences(known, config_hash, code, made):
            return "not known", f"{until}; all else is as in {_address(made)}"
    if not earlier:
        return "runs", f"{until}; nothing of the kind is finished"
    return "runs", f"{until}, and {_changed(known, config_hash, code, earlier)}"


def _changed(known: Mapping[str, str], config_hash: str, code: str, earlier: Sequence[Manifest]) -> str:
    """What is not as in the nearest finished output of the kind."""
    if not earlier:
        return "nothing of the kind is finished"
    nearest = min(earlier, key=lambda made: len(_differences(known, config_hash, code, made)))
    differences = _differences(known, config_hash, code, nearest) or ["which inputs it has"]
    return f"changed since {_address(nearest)}: {', '.join(differences)}"


def _differences(known: Mapping[str, str], config_hash: str, code: str, made: Manifest) -> list[str]:
    inputs = [name for name, value in known.items() if made.inputs.get(name) != value]
    return [
        *([f"inputs ({', '.join(inputs)})"] if inputs else []),
        *(["settings"] if made.config_hash != config_hash else []),
        *([f"code ({made.code_version[:30]}, now {code})"] if made.code_version != code else []),
    ]


def _address(made: Manifest) -> str:
    """STAGE/KEY, as status shows it."""
    names = made.uri.split("/")
    place = len(names) - 1 - names[::-1].index(made.stage) if made.stage in names else 0
    return "/".join(names[place:])
