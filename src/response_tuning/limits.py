"""Types of settings whose values are limited: numbers that can be computed with, and no secrets."""

import re
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, Field

from response_tuning.redaction import is_key

SMALLEST_TEMPERATURE = 1e-30
"""A logit in float32 divided by this is still finite."""
COUNT_LIMIT = 2**31
"""Upper bound of every count: torch, Trainer and servers count in 32 bits."""
_RANDOM_LETTERS = re.compile(r"(?=[^_]*[0-9]|[a-fA-F]+$)[^_]{16,}")
"""Many letters and digits without a break, as hex and base64 have: a key, not a variable's name."""


def _computable(temperature: float) -> float:
    if 0 < temperature < SMALLEST_TEMPERATURE:
        raise ValueError(f"{temperature:g} is too small to divide by; 0 is greedy")
    return temperature


def _holds_no_key(url: str) -> str:
    plain = url
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    if any(sign in plain for sign in "@?#;=") or is_key(plain):
        raise ValueError(
            "a server's address is http(s)://HOST/PATH and must not hold a key; put the key "
            "into an environment variable and name that (api_key_env)"
        )
    return url


def _is_no_key(name: str) -> str:
    is_name = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
    if not is_name or is_key(name) or _RANDOM_LETTERS.fullmatch(name):
        raise ValueError(
            "expected the name of an environment variable, such as OPENAI_API_KEY, and not "
            "the key that it holds"
        )
    return name


Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random choice.")]
"""NumPy's range, the narrowest of the generators that a run seeds."""
Temperature = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="Sampling temperature; 0 is greedy."),
    AfterValidator(_computable),
]
MaxNewTokens = Annotated[int, Field(ge=1, lt=COUNT_LIMIT, description="Longest reply in tokens.")]
ColumnName = Annotated[
    str | None, Field(description="Column to read. By default, it is found by its usual names.")
]
ServerAddress = Annotated[str, AfterValidator(_holds_no_key)]
"""Address of a server. The message about a wrong one does not repeat it: it may hold a key."""
KeyVariable = Annotated[str, AfterValidator(_is_no_key)]
"""Name of the environment variable that holds a key."""


def check_prices(price_in: float | None, price_out: float | None) -> None:
    """Refuse one price without the other.

    Raises:
        ValueError: one of them is None.
    """
    if (price_in is None) != (price_out is None):
        known, missing = sorted(("price_in", "price_out"), reverse=price_in is None)
        raise ValueError(f"{known} has no effect without {missing}; give both, or neither")
