"""The engine of `judge` waits for no prompt but the next one."""

from limbeck.stages import generate, judge
from limbeck.stages.prepare import Prepared
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor


class Tokenizing(ScriptedSampler):
    """Notes how many prompts were tokenized when the first answer came."""

    def __init__(self) -> None:
        self.tokenized, self.before_answer = 0, 0
        super().__init__(self._first)

    def _first(self, prompt: str, seed: int | None) -> str:
        self.before_answer = self.before_answer or self.tokenized
        return "yes"

    def chat_prompt(self, user_message: str) -> list[int]:
        self.tokenized += 1
        return self.prompt_ids(user_message)


def test_no_more_prompts_are_tokenized_than_the_engine_takes(
    store: Store, work_uri: str, config_for: ConfigFor, prepared: Prepared
) -> None:
    config = config_for()
    asked = Tokenizing()
    made = generate.run(prepared.prompts, "t", lambda: asked, config, store, work_uri, role="teacher")
    asked = Tokenizing()
    judged = judge.run(prepared.prompts, made, "t", lambda: asked, config, store, work_uri)
    assert judged.num_rows == asked.tokenized > asked.at_once
    assert asked.before_answer == asked.at_once
