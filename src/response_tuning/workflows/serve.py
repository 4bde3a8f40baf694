"""``rtune chat``: a model in a person's hands."""

from collections.abc import Iterable

from response_tuning.artifacts import Sampling


def run_chat(
    model: str,
    template: str | None,
    sampling: Sampling,
    lines: Iterable[str],
    *,
    explain: bool = False,
) -> None:
    """Chat with ``model`` about ``lines`` until ``exit``, their end or Ctrl-C.

    Raises:
        ModelError: the model cannot be loaded.
        TemplateError: it has no chat template, or one that cannot render a conversation.
    """
    from response_tuning.serve import chat

    chat.run_chat(model, template, sampling, lines, explain=explain)
