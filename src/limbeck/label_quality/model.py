"""What the label report measures: figures alone, no texts.

Written by the stage `report` into labels.json and report.json; drawn by `limbeck.report.labels_page`.
"""

from pydantic import BaseModel, ConfigDict

from limbeck.metrics import Figure, ReliabilityBin


class Quality(BaseModel):
    """Base of all parts: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Vote(Quality):
    """What one rule gives when it sees the completions of one temperature only, or all of them."""

    rule: str
    temperature: float | None
    """None: all temperatures together."""
    coverage: Figure
    """Share of the prompts that get a label."""
    precision: Figure
    """Share of the labels that equal the gold answer."""


class VoteBySamples(Quality):
    """What one rule gives when it sees so many completions of each prompt, drawn from all temperatures."""

    rule: str
    num_samples: int
    coverage: Figure
    precision: Figure


class Point(Quality):
    """Coverage and precision of a rule at one threshold of the vote share."""

    min_vote_share: float
    coverage: Figure
    precision: Figure


class Curve(Quality):
    """How a rule trades coverage for precision: one point a threshold, from 0 to 1."""

    rule: str
    temperature: float | None
    """None: all temperatures together."""
    points: tuple[Point, ...]


class Answers(Quality):
    """How often single completions are right."""

    temperature: float | None
    num_completions: int
    accuracy: Figure
    """Share of the completions whose answer equals the gold answer."""


class VoteShareBin(Quality):
    """Labels by the share of the votes that the winner got: above `low`, up to `high`.

    The fewer votes, the harder the prompt was for the teacher. The lowest part has shares of 0 too.
    """

    low: float
    high: float
    num_labels: int
    precision: Figure
    student_agreement: Figure = None
    """Share of the student completions of these prompts that give the label's answer; None of open
    questions."""


class Confusion(Quality):
    """Judgements against gold: judged correct from `min_p_correct` on."""

    temperature: float | None
    tp: int
    fp: int
    tn: int
    fn: int
    auc: Figure
    """Of P(correct), which needs no threshold."""


class Calibration(Quality):
    """How far P(correct) means what it says, against gold."""

    calibrate: str
    """`none`: as the judge says it; `majority`: calibrated by the votes of other prompts."""
    ece: Figure
    """Expected calibration error, 10 bins; 0 is perfect."""
    bins: tuple[ReliabilityBin, ...]


class PositionBias(Quality):
    """What the order of the two words in the judge prompt does; measured where both orders were asked."""

    num_completions: int
    mean_difference: Figure
    """P(correct) with `judge.yes` named first minus that with `judge.no` first. Above 0: the judge likes what
    stands first."""
    mean_absolute: Figure
    """The mean size of that difference."""
    flipped: Figure
    """Share of the completions that one order judges correct and the other wrong, at `min_p_correct`."""


class LengthBias(Quality):
    """Correlation of P(correct) with the number of characters, where length should not matter."""

    right: Figure
    """Among completions that are right by gold."""
    wrong: Figure
    """Among those that are wrong."""
    same_answer: Figure
    """Among completions of one prompt with one answer; needs no gold."""


class WrongLabel(Quality):
    """A label that gold contradicts."""

    prompt_id: str
    answer: str
    gold: str
    vote_share: float
    num_votes: int
    completion_id: str | None
    """Of the completions that gave this answer, the one that is judged best."""


class WrongJudgement(Quality):
    """A completion that the judge believes and gold contradicts."""

    prompt_id: str
    completion_id: str
    answer: str | None
    gold: str
    p_correct: float


class LabelQuality(Quality):
    """The whole label report."""

    rule: str
    """The rule that made the run's labels."""
    num_prompts: int
    coverage: Figure
    precision: Figure
    unlabelled: dict[str, int]
    """How many prompts have no label, by reason."""
    by_vote_share: tuple[VoteShareBin, ...]
    votes: tuple[Vote, ...]
    """Each rule, over all temperatures and by temperature; empty without teacher completions."""
    by_samples: tuple[VoteBySamples, ...]
    """Each rule, by the number of completions; empty without any."""
    curves: tuple[Curve, ...]
    """Each rule, over all temperatures and by temperature; empty without teacher completions."""
    teacher: tuple[Answers, ...]
    """Teacher completions, over all temperatures and by temperature; empty without any."""
    student: tuple[Answers, ...]
    """The same of the warmed-up student."""
    min_p_correct: float
    calibrate: str
    """Which P(correct) the votes here and in the run go by: `none` or `majority`."""
    judge: tuple[Confusion, ...]
    """Over all temperatures and by temperature; empty without gold or judgements."""
    calibration: tuple[Calibration, ...]
    """Before and, where the completions allow it, after calibration; empty without gold or judgements."""
    position: PositionBias | None
    """None where no completion was judged in both orders."""
    length: LengthBias | None
    """None without judgements."""
    wrong_labels: tuple[WrongLabel, ...]
    """Those with the highest vote share; one a prompt, as is the next."""
    wrong_judgements: tuple[WrongJudgement, ...]
    """Those with the highest P(correct)."""

    @property
    def upper_bound(self) -> bool:
        """Whether the labels are gold answers: no result of the method."""
        return self.rule == "gold"
