"""Sampling from a model with vLLM; the one importer of vllm.

The same code serves GPUs and CPUs: only `EngineConfig` differs. Prompts are given to the engine as
token ids made with the model's own chat template.
"""

import gc
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllm.entrypoints.llm import LLM  # not by `vllm`, which loads it as late as an engine starts
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError

from limbeck import chat as chats
from limbeck.config import Chat, EngineConfig, ModelConfig
from limbeck.errors import ConfigError, EngineError
from limbeck.loading import loading
from limbeck.sampling import Sample, SampleRequest

CPU_CACHE_MIB = 1024
"""The KV cache on CPUs where `engine.kv_cache_mib` says nothing: vLLM would take a share of all memory."""


def load_worker() -> None:
    """Import what an engine on CPUs imports as it starts: for a process that is forked for engines."""
    with loading():
        import vllm.v1.worker.cpu_worker  # noqa: F401, PLC0415 - elsewhere other workers are wanted


class VllmSampler:
    """A vLLM engine that this process drives.

    `sample` answers a batch in order, `stream` as its answers finish. `add` and `step` are what they are made
    of: requests may join at any step, and an answer is there at the step that finishes it.
    """

    def __init__(
        self, folder: Path, model: ModelConfig, engine: EngineConfig, chat: Chat | None = None
    ) -> None:
        """Load a checkpoint folder; `chat` says how `prompt_ids` puts questions.

        Raises:
            EngineError: when vLLM cannot load or run it.
        """
        cache_mib = engine.kv_cache_mib or (CPU_CACHE_MIB if current_platform.is_cpu() else None)
        cache = {"kv_cache_memory_bytes": cache_mib << 20} if cache_mib else {}
        try:
            self._llm = LLM(
                model=str(folder),
                dtype=model.dtype,
                load_format="safetensors",  # never a pickle, and nothing is guessed from the names of files
                trust_remote_code=model.trust_remote_code,
                max_model_len=engine.max_model_len,
                max_num_seqs=engine.max_num_seqs,
                gpu_memory_utilization=engine.gpu_memory_utilization,
                enforce_eager=engine.enforce_eager,
                tensor_parallel_size=engine.tensor_parallel_size,
                pipeline_parallel_size=engine.pipeline_parallel_size,
                enable_prefix_caching=True,
                # Of a prompt across two steps vLLM 0.32 winds the generator back, as CUDA's alone can be.
                enable_chunked_prefill=False if current_platform.is_cpu() else None,
                disable_log_stats=True,
                **cache,
            )
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise EngineError(
                "vLLM cannot load the model",
                where=folder.name,
                got=str(error)[:600] or type(error).__name__,
                remedy="Check the checkpoint, `engine.max_model_len` and the memory settings",
            ) from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._prompt_ids = chats.asking(self._tokenizer, chat or Chat())
        self._engine: Any = self._llm.llm_engine
        self._asked: dict[str, tuple[int, SampleRequest]] = {}
        self._finished_tokens = 0
        self._verdicts: dict[tuple[str, str], tuple[set[int], set[int]]] = {}

    def prompt_ids(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""
        return self._prompt_ids(user_message)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """One sample for each request, in order.

        Raises:
            ConfigError: when the two words of a verdict begin with the same token.
            EngineError: when the engine fails.
        """
        samples = dict(self.stream(enumerate(requests)))
        return [samples[number] for number in range(len(requests))]

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """Answers with their requests' numbers, in the order in which they finish.

        Raises:
            ConfigError, EngineError: as `sample` does.
        """
        for number, request in requests:
            self.add(number, request)
        while self.busy:
            yield from self.step()

    def add(self, number: int, request: SampleRequest) -> None:
        """Hand a request to the engine; its answer comes from a later `step`, with this number.

        Raises:
            ConfigError: when the two words of its verdict begin with the same token.
            EngineError: when the engine fails.
        """
        params = self._params(request)
        with _engine_errors():
            added = self._engine.add_request(str(number), {"prompt_token_ids": request.prompt}, params)
        # vLLM would write out the text of each token that has a log-probability, which nobody reads.
        self._engine.output_processor.request_states[added].logprobs_processor.tokenizer = None
        self._asked[str(number)] = number, request

    def step(self) -> list[tuple[int, Sample]]:
        """Decode one step for all that were added; the answers that are finished by it.

        Raises:
            EngineError: when the engine fails.
        """
        with _engine_errors():
            results = [result for result in self._engine.step() if result.finished]
        finished = []
        for result in results:
            number, request = self._asked.pop(result.request_id)
            self._finished_tokens += len(result.outputs[0].token_ids)
            finished.append((number, self._sample(result.outputs[0], request)))
        return finished

    @property
    def busy(self) -> bool:
        """Whether a request is not answered yet."""
        return bool(self._asked)

    @property
    def num_tokens(self) -> int:
        """Tokens sampled so far, those of unfinished answers too: while it grows the engine is alive."""
        states = self._engine.output_processor.request_states.values()
        unfinished: int = sum(state.detokenizer.num_output_tokens() for state in states)
        return self._finished_tokens + unfinished

    @property
    def core_died(self) -> bool:
        """Whether vLLM's own process, if it has one, ended of itself."""
        resources = getattr(self._engine.engine_core, "resources", None)
        return resources is not None and resources.engine_dead

    def _params(self, request: SampleRequest) -> Any:
        """A request in vLLM's terms."""
        words = sorted(set().union(*self._first_tokens(request.verdict))) if request.verdict else None
        logprobs = len(words) if words else 0 if request.logprobs or request.token_logprobs else None
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=request.seed if request.temperature > 0 else None,
            logprobs=logprobs,
            logprob_token_ids=words,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # they are made for this request alone
        )

    def _sample(self, output: Any, request: SampleRequest) -> Sample:
        """A finished answer in our terms."""
        p_first = None
        if request.verdict:
            first = output.logprobs[0]
            one, other = (
                sum(math.exp(first[token].logprob) for token in tokens if token in first)
                for tokens in self._first_tokens(request.verdict)
            )
            p_first = one / (one + other) if one + other > 0 else 0.0
        return Sample(
            text=output.text.strip(),
            token_ids=list(output.token_ids),
            logprob=float(output.cumulative_logprob or 0.0) if request.logprobs else None,
            finish_reason=output.finish_reason or "abort",
            token_logprobs=[
                places[token].logprob for places, token in zip(output.logprobs, output.token_ids, strict=True)
            ]
            if request.token_logprobs
            else None,
            p_first=p_first,
        )

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a checkpoint folder of the same shape, in place.

        What was cached for the old weights is forgotten, so the next sample comes from the new ones.
        """
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if current_platform.is_cpu():
            self._llm.apply_model(_renew_tied_head)
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        """Free the engine's memory."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()

    def _first_tokens(self, verdict: tuple[str, str]) -> tuple[set[int], set[int]]:
        """The token ids that each of two words can begin with: as is, capitalised, after a space.

        Raises:
            ConfigError: when nothing tells the words apart.
        """
        if verdict not in self._verdicts:
            one, other = (self._begins(word) for word in verdict)
            shared = one & other  # such as a lone space, which tells nothing
            if not one - shared or not other - shared:
                raise ConfigError(
                    "the verdict words begin with the same token",
                    where="judge.yes, judge.no",
                    expected="two words that this tokenizer tells apart",
                    got=", ".join(map(repr, verdict)),
                    remedy="Choose other words",
                )
            self._verdicts[verdict] = one - shared, other - shared
        return self._verdicts[verdict]

    def _begins(self, word: str) -> set[int]:
        """The token ids that a word can begin with."""
        forms = {word, word.capitalize(), f" {word}", f" {word.capitalize()}"}
        ids = [self._tokenizer.encode(form, add_special_tokens=False) for form in forms]
        return {encoded[0] for encoded in ids if encoded and encoded[0] != self._tokenizer.unk_token_id}


@contextmanager
def _engine_errors() -> Iterator[None]:
    """What vLLM raises while it works, as an EngineError."""
    try:
        yield
    except (ValueError, RuntimeError, EngineDeadError) as error:
        raise EngineError(
            "vLLM failed while sampling", got=str(error)[:600] or type(error).__name__, remedy="See the log"
        ) from error


def _renew_tied_head(model: Any) -> None:
    """Pack a tied output head anew from the embedding.

    On CPUs vLLM 0.32 computes with a packed copy of `lm_head`; for tied embeddings `reload_weights`
    leaves the copy of the old weights in place, and samples come from a mixture of old and new.
    """
    if model.config.tie_word_embeddings:
        head = model.lm_head.tie_weights(model.model.embed_tokens)
        head.quant_method.process_weights_after_loading(head)
