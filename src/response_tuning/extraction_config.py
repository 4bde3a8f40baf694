"""Settings of passages of plain documents, which become responses."""

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from response_tuning.artifacts import Record


class ExtractionConfig(Record):
    """Passages of plain documents as responses (the paper's appendix F)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text_column: str | None = None
    """Column that holds the text of a document."""
    min_words: int = Field(default=50, ge=1, description="Drop shorter passages.")
    max_words: int = Field(default=250, ge=1, description="Split longer passages.")

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self
