"""A whole run made by hand: the rows and checkpoints that a report tells of, in a real object store."""

from dataclasses import dataclass
from pathlib import Path

from limbeck.manifest import Manifest, commit
from limbeck.records import (
    Completion,
    EvalResult,
    GoldAnswer,
    Judgement,
    Prompt,
    PseudoLabel,
    Row,
    Source,
)
from limbeck.rows import write_rows
from limbeck.stages.report import ReportInputs
from limbeck.storage import Store

NUM_HELDOUT = 40
# How many of the held-out prompts each model has right: always the first ones.
RIGHT = {"teacher": 20, "student": 8, "sft_selected": 22, "ppo_model": 26, "ppo_mixed": 32}
HISTORY = '{"update": 1, "ppo/score": 0.5, "ppo/batch_agreement": 0.6, "ppo/kl": null}\n'


@dataclass(frozen=True)
class Maker:
    """Puts made rows and checkpoints into the store."""

    store: Store
    work_uri: str
    folder: Path

    def rows(self, stage: str, name: str, rows: list[Row], **values: object) -> Manifest:
        uri = f"{self.work_uri}/{stage}/{name}"
        objects = [write_rows(self.store, uri, rows)] if rows else []
        return self._commit(stage, name, uri, objects=objects, num_rows=len(rows), **values)

    def checkpoint(self, stage: str, name: str, history: str = HISTORY, **metrics: float) -> Manifest:
        folder = self.folder / stage / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "history.jsonl").write_text(history)
        uri = f"{self.work_uri}/{stage}/{name}"
        objects = self.store.write_folder(folder, uri)
        return self._commit(
            stage,
            name,
            uri,
            objects=objects,
            metrics={f"{stage}/{key}": value for key, value in metrics.items()},
        )

    def _commit(self, stage: str, name: str, uri: str, **values: object) -> Manifest:
        made = {
            "stage": stage,
            "kind": "made",
            "name": name,
            "uri": uri,
            "inputs": {},
            "config_hash": "c",
            "code_version": "v",
        }
        return commit(self.store, Manifest.model_validate(made | values))


def completion(prompt_id: str, source: Source, index: int, answer: str) -> Completion:
    return Completion(
        completion_id=f"{source}{prompt_id}{index}",
        prompt_id=prompt_id,
        source=source,
        text=f"= {answer}",
        answer=answer,
        temperature=(0.3, 1.0)[index % 2],
        sample_index=index,
        seed=1,
        logprob=-1.0,
        num_tokens=2,
        finish_reason="stop",
    )


def results(name: str, *, with_gold: bool) -> list[Row]:
    return [
        EvalResult(
            prompt_id=f"h{number:02d}",
            name=name,
            decoding=decoding,
            sample_index=0,
            text="<script>alert(1)</script>",
            answer="A",
            correct=number < RIGHT[name] if with_gold else None,
            num_tokens=10 + number % 2,
            finish_reason="stop",
        )
        for decoding in ("greedy", "sampled")
        for number in range(NUM_HELDOUT)
    ]


def make_inputs(maker: Maker, *, with_gold: bool) -> ReportInputs:
    train = [f"p{number}" for number in range(4)]
    heldout = [f"h{number:02d}" for number in range(NUM_HELDOUT)]
    teacher = [completion(p, "teacher", i, "a" if i < 3 else "b") for p in train for i in range(4)]
    student = [completion(p, "student", i, "b") for p in train for i in range(2)]
    # Gold as people write it; answers in rows are in their normal form.
    gold = [GoldAnswer(prompt_id=p, answer=" A. ") for p in (*train, *heldout)] if with_gold else []
    policies = tuple(
        maker.checkpoint("ppo", name, validation_agreement=0.7, stopped_by_monitor=stopped)
        for name, stopped in (("ppo_model", 1.0), ("ppo_mixed", 0.0))
    )
    return ReportInputs(
        prompts=maker.rows("prepare", "prompts", [Prompt(prompt_id=p, prompt=p) for p in train]),
        heldout=maker.rows("prepare", "heldout", [Prompt(prompt_id=p, prompt=f"<b>{p}") for p in heldout]),
        gold=maker.rows("prepare", "gold", list(gold)),
        completions=(
            maker.rows("generate", "teacher-0", list(teacher[:8]), rejected={"prompt too long": 1}),
            maker.rows("generate", "teacher-1", list(teacher[8:])),
        ),
        judgements=(
            maker.rows(
                "judge",
                "judge",
                [
                    Judgement(completion_id=row.completion_id, prompt_id=row.prompt_id, p_correct=0.9)
                    for row in teacher
                ],
            ),
        ),
        labels=maker.rows(
            "label",
            "labels",
            [
                PseudoLabel(
                    prompt_id=p, answer="a", vote_share=0.75, num_votes=4, reason="labelled", validation=False
                )
                for p in train
            ],
        ),
        sft_checkpoints=(maker.checkpoint("sft", "sft_selected"),),
        student_completions=(maker.rows("generate", "student", list(student)),),
        reward_model=maker.checkpoint("reward", "reward", auc_student=0.83),
        policies=policies,
        policy=policies[1],
        results=tuple(maker.rows("evaluate", name, results(name, with_gold=with_gold)) for name in RIGHT),
    )


def read(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """The files of a report by name."""
    return {item.uri.rsplit("/", 1)[1]: store.read_bytes(item.uri) for item in manifest.objects}
