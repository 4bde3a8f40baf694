"""Numbers that models are asked with, within what can be computed and counted."""

from typing import Annotated

from pydantic import AfterValidator, Field

SMALLEST = 1e-30
"""A logit in float32, divided by this temperature, is still a number."""


def _computable(temperature: float) -> float:
    if 0 < temperature < SMALLEST:
        raise ValueError(f"{temperature:g} is too small to divide by; 0 is greedy")
    return temperature


Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_computable)]
"""0 is greedy."""
MaxNewTokens = Annotated[int, Field(ge=1, lt=2**31)]
"""Longest reply in tokens; engines and servers count in 32 bits."""
