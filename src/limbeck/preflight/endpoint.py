"""Checks of a black-box teacher's server: it answers, takes the key, and knows the model. Costs nothing."""

import difflib
import os
import urllib.error
import urllib.request
from email.message import Message
from typing import IO

from pydantic import BaseModel, ValidationError

from limbeck.config import OpenAIConfig
from limbeck.credentials import API_KEY
from limbeck.errors import EndpointError
from limbeck.preflight.findings import Finding, collected, warning

ANSWER_SECONDS = 20.0
MAX_BYTES = 16 << 20
NOT_LISTED = (404, 405, 501)
"""What a server says that has no list of its models."""


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    """What is read of `/models`."""

    data: list[_Model]


class _Stay(urllib.request.HTTPRedirectHandler):
    """Another server would get the key."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow none: the answer is then an HTTPError."""


def check_server(name: str, server: OpenAIConfig, checked: list[str]) -> list[Finding]:
    """Ask a server for its models, once.

    Args:
        name: What it should call the teacher.
        server: Where it is.
        checked: Gets a line on what was looked at.
    """
    findings: list[Finding] = []
    with collected(findings):
        try:
            models = _models(server.base_url)
        except _NotToldError as error:
            return [warning(error)]
        if name not in models:
            near = difflib.get_close_matches(name, models, n=3)
            raise EndpointError(
                "the teacher's server does not know the model",
                where=f"parameter teacher, at {server.base_url}",
                expected=" or ".join(near) or f"one of its {len(models)} models",
                got=name,
                remedy="Correct the name, or openai.base_url",
            )
        checked.append(f"{server.base_url} answers and has {name}")
    return findings


class _NotToldError(EndpointError):
    """The server answers, but tells no models."""


def _models(base_url: str) -> list[str]:
    """The names of a server's models.

    Raises:
        EndpointError: when it does not answer, or refuses the key.
        _NotToldError: when it answers something else.
    """
    key = os.environ.get(API_KEY, "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    asked = urllib.request.Request(f"{base_url}/models", headers=headers)  # noqa: S310 - it is http
    try:
        with urllib.request.build_opener(_Stay).open(asked, timeout=ANSWER_SECONDS) as answer:
            return [model.id for model in _Models.model_validate_json(answer.read(MAX_BYTES)).data]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise EndpointError(
                "the teacher's server refuses the key",
                where=base_url,
                got=f"HTTP {error.code}" + ("" if key else f" and no {API_KEY}"),
                remedy=f"Set {API_KEY}; in a cluster, by the secret that the parameter `api_secret` names: "
                "manifests/examples/api-secret.yaml",
            ) from error
        raise _NotToldError(
            "the teacher's name was not checked, as its server "
            + ("lists no models" if error.code in NOT_LISTED else "is busy or broken"),
            where=f"{base_url}/models",
            got=f"HTTP {error.code}",
            remedy="Check openai.base_url, which most often ends in /v1",
        ) from error
    except ValidationError as error:
        raise _NotToldError(
            "the teacher's name was not checked, as its server lists no models",
            where=f"{base_url}/models",
            got="an answer that is no list of models",
            remedy="Check openai.base_url, which most often ends in /v1",
        ) from error
    except (OSError, ValueError) as error:
        raise EndpointError(
            "the teacher's server does not answer",
            where=base_url,
            got=type(error.reason if isinstance(error, urllib.error.URLError) else error).__name__,
            remedy="Check openai.base_url; in a cluster a NetworkPolicy must let tasks reach it: "
            "manifests/components/black-box",
        ) from error
