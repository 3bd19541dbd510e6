"""Sampling from a black box: a server that speaks OpenAI's API; the one importer of openai.

Text goes out and text comes back, so teacher and student need not share a tokenizer. The key is the variable
OPENAI_API_KEY, and goes nowhere but into the header of the requests.

Beside storage this is the second place where a network is, and so where something is tried again.
"""

import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from email.utils import parsedate_to_datetime
from itertools import count, islice
from typing import Any

import openai
from pydantic import BaseModel, Field, ValidationError

from limbeck.config import Chat, OpenAIConfig
from limbeck.credentials import API_KEY
from limbeck.errors import EndpointError, one_line
from limbeck.pace import Pace
from limbeck.progress import say
from limbeck.sampling import Answer, RefusedError, Sample, SampleRequest, Usage
from limbeck.verdicts import probability, word_of

IN_FLIGHT = 2
"""Requests handed out, as a multiple of `max_concurrent`: one share is open, one waits to take its place."""
CHARS_PER_TOKEN = 4
"""Of English text, about; until the server has counted."""
PASSING = (408, 409, 425, 429)
"""Statuses below 500 after which the same request may succeed a little later."""
CONTROL = SampleRequest("Say yes.", temperature=0.0, max_tokens=1)
"""Asked to tell a server that is broken from a row that breaks it."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0


class _Token(BaseModel):
    token: str
    logprob: float = Field(allow_inf_nan=False)


class _Place(_Token):
    top_logprobs: list[_Token] | None = None


class _Logprobs(BaseModel):
    content: list[_Place] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class _Reply(BaseModel):
    """What is read of a chat completion; servers differ in all else."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str | None = None


class OpenAISampler:
    """A `StreamingSampler`: a model that a server runs."""

    def __init__(self, name: str, server: OpenAIConfig, chat: Chat | None = None) -> None:
        """Ask nothing yet.

        Args:
            name: What the server calls the model.
            server: Where it is, and how much it bears.
            chat: What goes along with each message: a system prompt, whether the model shall think.
        """
        self._name, self._server, self._chat = name, server, chat or Chat()
        self._key = os.environ.get(API_KEY, "").strip()
        self._client = openai.OpenAI(
            api_key=self._key or "none",  # servers of one's own may want none; the client does
            base_url=server.base_url,
            timeout=server.request_seconds,
            max_retries=0,  # the client's own retries know a number but no deadline
        )
        self._pace = Pace(server.requests_per_minute, server.tokens_per_minute)
        self._pool = ThreadPoolExecutor(server.max_concurrent)
        self._stop = threading.Event()
        self._told: set[str] = set()

    def chat_prompt(self, user_message: str) -> str:
        """The message itself: the template is the server's."""
        return user_message

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Answer]]:
        """Answers with their requests' numbers, in the order in which they come.

        Raises:
            EndpointError: when the server is away for too long, or refuses the key or the model.
        """
        waiting = iter(requests)
        asked: dict[Future[Answer], int] = {}
        while True:
            room = IN_FLIGHT * self._server.max_concurrent - len(asked)
            for number, request in islice(waiting, room):
                asked[self._pool.submit(self._answer, request)] = number
            if not asked:
                return
            done = wait(asked, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda future: future.exception() is not None):  # answers are paid
                yield asked.pop(future), future.result()

    def restart(self) -> None:
        """Nothing: the server is not ours."""

    def close(self) -> None:
        """Give up what is open."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _answer(self, request: SampleRequest) -> Answer:
        """Ask until there is an answer, or no hope of one.

        Raises:
            EndpointError: when all other requests are in vain too.
        """
        at_most = len(request.prompt) // CHARS_PER_TOKEN + request.max_tokens
        began = float("inf")
        for tries in count(1):
            if self._stop.wait(self._pace.take(at_most)):
                raise EndpointError("given up because another request has failed")
            began = min(began, time.monotonic())
            try:
                raw = self._client.chat.completions.with_raw_response.create(**self._body(request))
                reply = _Reply.model_validate_json(raw.content)
            except (openai.APIConnectionError, openai.APIStatusError, ValidationError) as error:
                self._pace.give_back(at_most)
                failed: Exception = error
            else:
                return self._sample(reply, request, at_most)
            if isinstance(failed, openai.APIStatusError) and not _may_pass(failed):
                return self._refusal(failed)
            pause = _pause(tries, failed)
            if _status(failed) == 429:
                self._pace.hold(_retry_after(failed))
            seconds = time.monotonic() - began
            if seconds + pause > self._server.deadline_seconds:
                return self._given_up(failed, f" after {tries} tries in {seconds:.0f} s")
            self._stop.wait(pause)
        raise AssertionError  # count() has no end

    def _body(self, request: SampleRequest) -> dict[str, Any]:
        """A request in the API's terms: as few as will do, as servers refuse what they do not know."""
        body: dict[str, Any] = {
            "model": self._name,
            "messages": self._messages(request),
            "temperature": request.temperature,
            self._server.limit_name: request.max_tokens,
        }
        if request.top_p < 1:
            body["top_p"] = request.top_p
        if request.seed is not None and request.temperature > 0 and self._server.send_seeds:
            body["seed"] = request.seed
        if self._server.top_logprobs and (request.logprobs or request.verdict):
            body["logprobs"] = True
        if self._server.top_logprobs and request.verdict:
            body["top_logprobs"] = self._server.top_logprobs
        if self._chat.enable_thinking is not None:
            body["extra_body"] = {"chat_template_kwargs": {"enable_thinking": self._chat.enable_thinking}}
        return body

    def _messages(self, request: SampleRequest) -> list[dict[str, Any]]:
        """The user message, after the system prompt if there is one."""
        system = self._chat.system_prompt
        said = [{"role": "system", "content": system}] if system else []
        return [*said, {"role": "user", "content": request.prompt}]

    def _sample(self, reply: _Reply, request: SampleRequest, at_most: int) -> Sample:
        """An answer in our terms."""
        choice, usage = reply.choices[0], reply.usage
        if usage:
            self._pace.give_back(at_most - usage.prompt_tokens - usage.completion_tokens)
        else:
            self._tell("the server counts no tokens: cost and tokens are told as 0")
        if reply.model and reply.model != self._name:
            self._tell(f"the server answers as {reply.model[:80]}")
        text = (choice.message.content or "").strip()
        places = (choice.logprobs and choice.logprobs.content) or []
        return Sample(
            text=text,
            token_ids=[],
            logprob=sum(place.logprob for place in places) if places and request.logprobs else None,
            finish_reason=choice.finish_reason or "abort",
            p_first=self._p_first(text, places, request.verdict) if request.verdict else None,
            usage=Usage(usage.prompt_tokens, usage.completion_tokens) if usage else Usage(0, 0),
        )

    def _p_first(self, text: str, places: list[_Place], verdict: tuple[str, str]) -> float | None:
        """A verdict: from the first token's log-probabilities, else from its text; None if it is neither."""
        if places and places[0].top_logprobs:
            return probability([(top.token, top.logprob) for top in places[0].top_logprobs], verdict)
        self._tell("the server gives no log-probabilities: a verdict is its text, so P(correct) is 1 or 0")
        place = word_of(text, verdict)
        return None if place is None else 1.0 - place

    def _tell(self, text: str) -> None:
        """Say something once."""
        if text not in self._told:
            self._told.add(text)
            say(text)

    def _refusal(self, error: openai.APIStatusError) -> RefusedError:
        """Why one request is not answered.

        Raises:
            EndpointError: when no other would be.
        """
        where, status = self._server.base_url, error.status_code
        if status in (401, 403):
            raise EndpointError(
                "the teacher's server refuses the key",
                where=where,
                got=f"HTTP {status}" + ("" if self._key else f" and no {API_KEY}"),
                remedy=f"Set {API_KEY}, or the secret that the parameter `api_secret` names",
            ) from error
        if status == 404:
            raise EndpointError(
                "the teacher's server does not know the model",
                where=where,
                got=f"HTTP 404 for {self._name}",
                remedy="Correct the parameter `teacher`, or openai.base_url; most end in /v1",
            ) from error
        if status == 402 or error.code == "insufficient_quota":
            raise EndpointError(
                "the teacher's server wants to be paid",
                where=where,
                got=f"HTTP {status} {error.code or ''}".strip(),
                remedy="Look at the account, then run again: finished rows are kept",
            ) from error
        return RefusedError(f"HTTP {status}", got=self._said(error))

    def _given_up(self, error: Exception, tried: str) -> RefusedError:
        """A request that was tried for too long: its own fault if the server answers another one.

        Raises:
            EndpointError: when it is the server's.
        """
        got = f"{self._said(error)}{tried}"
        if _status(error) != 429 and self._answers(CONTROL):
            return RefusedError("no answer, though the server gives others", got=got)
        raise EndpointError(
            "the teacher's server is busy"
            if _status(error) == 429
            else "the teacher's server does not answer",
            where=self._server.base_url,
            expected=f"an answer within {self._server.deadline_seconds:g} s (openai.deadline_seconds)",
            got=got,
            remedy="Look at the server; lower openai.max_concurrent, or set requests_per_minute and "
            "tokens_per_minute, where it is busy. Run again: finished rows are kept",
        ) from error

    def _answers(self, request: SampleRequest) -> bool:
        """Whether a request is answered at the first try."""
        try:
            raw = self._client.chat.completions.with_raw_response.create(**self._body(request))
            _Reply.model_validate_json(raw.content)
        except (openai.APIConnectionError, openai.APIStatusError, ValidationError):
            return False
        return True

    def _said(self, error: Exception) -> str:
        """What went wrong, without the key: servers repeat what they were sent."""
        if isinstance(error, ValidationError):
            return "an answer that is no chat completion"
        if not isinstance(error, openai.APIStatusError):
            return type(error).__name__
        body = error.body if isinstance(error.body, dict) else {}
        words = one_line(str(body.get("message") or ""))[:300]
        words = words.replace(self._key, "[key]") if self._key else words
        return f"HTTP {error.status_code}: {words}" if words else f"HTTP {error.status_code}"


def _status(error: Exception) -> int:
    """The HTTP status of a refusal, 0 if there is none."""
    return int(error.status_code) if isinstance(error, openai.APIStatusError) else 0


def _may_pass(error: openai.APIStatusError) -> bool:
    """Whether the same request may succeed a little later."""
    return error.code != "insufficient_quota" and (error.status_code in PASSING or error.status_code >= 500)


def _pause(tries: int, error: Exception) -> float:
    """Seconds before the next try: as the server asks, else they double; they vary, as many threads wait."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**tries)
    asked = _retry_after(error)
    return max(random.uniform(longest / 2, longest), asked * random.uniform(1.0, 1.1))  # noqa: S311 - no secrets


def _retry_after(error: Exception) -> float:
    """What the header Retry-After asks for, in seconds; 0 without one."""
    said = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if seconds < float("inf") else 0.0
