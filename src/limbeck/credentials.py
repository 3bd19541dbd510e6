"""What looks like a credential, by its name or by its form: it belongs into a Secret, and into no message."""

import re

USE_A_SECRET = "Put it into a Kubernetes Secret and take it from there as an environment variable"  # noqa: S105
API_KEY = "OPENAI_API_KEY"
"""The variable with the key of a black-box teacher's server."""
NAME = re.compile(
    r"(^|[^a-z])(password|passwd|passphrase|secret|credentials?|(?<!(pad|eos|bos|unk)_)token"
    r"|(api|access|secret|private)[_-]?key)$",
    re.IGNORECASE,
)
VALUE = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{36}"
    r"|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/\s:@{}$<]+:[^/\s:@{}$<]+@"
)


def named_like_one(key: str) -> bool:
    """Whether a setting of this name holds a credential."""
    return NAME.search(key) is not None


def looks_like_one(text: str) -> bool:
    """Whether a text holds a credential of a known form, a password in an address among them."""
    return VALUE.search(text) is not None
