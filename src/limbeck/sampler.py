"""Sampling from a model with vLLM; the one importer of vllm.

The same code serves GPUs and CPUs: only `EngineConfig` differs. Prompts are given to the engine as
token ids made with the model's own chat template.
"""

import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vllm
from vllm.platforms import current_platform

from limbeck.config import EngineConfig, ModelConfig
from limbeck.errors import ConfigError, EngineError
from limbeck.sampling import Sample, SampleRequest


class VllmSampler:
    """A vLLM engine in this process."""

    def __init__(self, folder: Path, model: ModelConfig, engine: EngineConfig) -> None:
        """Load a checkpoint folder.

        Raises:
            EngineError: when vLLM cannot load or run it.
        """
        cache = {"kv_cache_memory_bytes": engine.kv_cache_mib << 20} if engine.kv_cache_mib else {}
        try:
            self._llm = vllm.LLM(
                model=str(folder),
                dtype=model.dtype,
                load_format="safetensors",  # never a pickle, and nothing is guessed from the names of files
                trust_remote_code=model.trust_remote_code,
                max_model_len=engine.max_model_len,
                max_num_seqs=engine.max_num_seqs,
                gpu_memory_utilization=engine.gpu_memory_utilization,
                enforce_eager=engine.enforce_eager,
                tensor_parallel_size=engine.tensor_parallel_size,
                enable_prefix_caching=True,
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

    def prompt_ids(self, user_message: str) -> list[int]:
        """Token ids of a user message in the model's chat template, up to where the answer begins."""
        ids: list[int] = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": user_message}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return ids

    def sample(self, requests: Sequence[SampleRequest], *, logprobs: bool = False) -> list[Sample]:
        """One sample for each request, in order.

        Raises:
            EngineError: when the engine fails.
        """
        params = [
            vllm.SamplingParams(
                temperature=item.temperature,
                top_p=item.top_p,
                max_tokens=item.max_tokens,
                seed=item.seed if item.temperature > 0 else None,
                logprobs=0 if logprobs else None,
            )
            for item in requests
        ]
        outputs = self._run([item.prompt_ids for item in requests], params)
        return [
            Sample(
                text=output.text.strip(),
                token_ids=list(output.token_ids),
                logprob=float(output.cumulative_logprob or 0.0),
                finish_reason=output.finish_reason or "abort",
            )
            for output in (result.outputs[0] for result in outputs)
        ]

    def p_yes(self, prompts: Sequence[list[int]], yes: str, no: str) -> list[float]:
        """P(yes) / (P(yes) + P(no)) of the first token after each prompt, from its log-probabilities.

        Raises:
            ConfigError: when the two words begin with the same token.
        """
        yes_ids, no_ids = self._first_tokens(yes), self._first_tokens(no)
        shared = yes_ids & no_ids  # such as a lone space, which tells nothing
        yes_ids, no_ids = yes_ids - shared, no_ids - shared
        if not yes_ids or not no_ids:
            raise ConfigError(
                "the verdict words begin with the same token",
                where="judge.yes, judge.no",
                expected="two words that this tokenizer tells apart",
                got=f"{yes!r}, {no!r}",
                remedy="Choose other words",
            )
        params = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=len(yes_ids | no_ids),
            logprob_token_ids=sorted(yes_ids | no_ids),
        )
        verdicts = []
        for result in self._run(list(prompts), params):
            first = result.outputs[0].logprobs[0]
            p_yes = sum(math.exp(first[token].logprob) for token in yes_ids if token in first)
            p_no = sum(math.exp(first[token].logprob) for token in no_ids if token in first)
            verdicts.append(p_yes / (p_yes + p_no) if p_yes + p_no > 0 else 0.0)
        return verdicts

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

    def _run(self, prompts: list[list[int]], params: Any) -> list[Any]:
        """Run one batch through the engine."""
        if not prompts:
            return []
        try:
            results: list[Any] = self._llm.generate(
                [{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False
            )
        except (ValueError, RuntimeError) as error:
            raise EngineError(
                "vLLM failed while sampling", got=str(error) or type(error).__name__, remedy="See the log"
            ) from error
        return results

    def _first_tokens(self, word: str) -> set[int]:
        """The token ids that a verdict can begin with: as is, capitalised, after a space."""
        forms = {word, word.capitalize(), f" {word}", f" {word.capitalize()}"}
        ids = [self._tokenizer.encode(form, add_special_tokens=False) for form in forms]
        return {encoded[0] for encoded in ids if encoded and encoded[0] != self._tokenizer.unk_token_id}


def _renew_tied_head(model: Any) -> None:
    """Pack a tied output head anew from the embedding.

    On CPUs vLLM 0.32 computes with a packed copy of `lm_head`; for tied embeddings `reload_weights`
    leaves the copy of the old weights in place, and samples come from a mixture of old and new.
    """
    if model.config.tie_word_embeddings:
        head = model.lm_head.tie_weights(model.model.embed_tokens)
        head.quant_method.process_weights_after_loading(head)
