"""The model card: what was trained, on what, how, and what was left out."""

from typing import Any

from response_tuning.configs import FinetuneConfig

_CARD = """\
---
base_model: {{ config.base_model }}
library_name: {{ "peft" if is_adapter else "transformers" }}
pipeline_tag: text-generation
tags:
- response-tuning
{% if config.objective != "response-tuning" %}
- {{ config.objective }}
{% endif %}
---

# {{ config.objective }} of {{ config.base_model }}

Tuned with [response-tuning](https://arxiv.org/abs/2410.02465) ({{ packages["response-tuning"] }}).
{% if config.random_init %}
**A control**: the base's architecture with fresh weights, not its pre-trained ones.
{% endif %}
{% if config.objective == "response-tuning" %}
Tuning used responses only: no instruction was in context, and the loss covered the response and the
stop token.
{% elif config.objective == "decoupled" %}
Tuning was decoupled: the paired instruction kept its place before each response, and no token
attended to it. What could be seen was the assistant's opening and the response; the loss covered
the response and the stop token. In use the prompt is the ordinary one, with the instruction in it.
{% else %}
The loss covered the tokens that the objective '{{ config.objective }}' gives a weight, and the stop
token.
{% endif %}

## Data

Source: `{{ data.source.name }}`
{%- if data.source.commit is defined %}, hub commit `{{ data.source.commit }}`{% endif %}
{%- if data.source.sha256 is defined %}, sha256 `{{ data.source.sha256 }}`{% endif %}.
{{ data.rows }} rows gave {{ data.examples }} examples.

| outcome | number |
|---|---:|
{% for reason, count in data.dropped.items() %}
| rows or turns dropped: {{ reason }} | {{ count }} |
{% endfor %}
| examples kept whole | {{ audit.kept }} |
| examples truncated to {{ config.window }} tokens (no stop token learned) | {{ audit.truncated }} |
{% for reason, count in audit.dropped.items() %}
| examples dropped: {{ reason }} | {{ count }} |
{% endfor %}
| of the kept and truncated, held out | {{ audit.held_out }} |
| tokens | {{ audit.tokens }} |
| tokens that carry loss | {{ audit.supervised_tokens }} |
{% if audit.hidden_tokens %}
| further tokens, hidden from attention | {{ audit.hidden_tokens }} |
{% endif %}

Matched with other arms: {{ matched }}.

## Hyperparameters

| setting | value |
|---|---|
{% for name, value in settings.items() %}
| {{ name }} | {{ value }} |
{% endfor %}

{{ steps }} optimizer steps, {{ layout }} micro-batches.
{% if merged_into is defined %}
The adapter was trained against {{ merged_into.trained_against }} and merged into the base in
{{ merged_into.dtype }} ({{ merged_into.weights | default("its own weights") }}); it is kept in
`adapter/`.
{% endif %}
{% if held_out_loss is defined %}
Loss on the held-out examples: {{ "%.4f"|format(held_out_loss) }} a token; nothing was chosen by it.
{% endif %}

## Use

{% if is_adapter and stop is defined and not stop.of_base %}
The chat template is saved with the tokenizer ('{{ config.template }}'). A reply ends at
`{{ stop.token }}` and `rtune` stops there, but **other tools do not stop**: with an adapter, they
use the stop token of the base model, which is a different one. Merge the adapter for them (the same
command with `--merge`), or pass them the `generation_config.json` of this folder
(`generation_config=` in transformers and peft, `--generation-config` in vLLM).
{% else %}
The chat template is saved with the tokenizer ('{{ config.template }}'), and generation stops at
the stop token: any server that loads a Hugging Face folder uses the model as it was trained.
{% endif %}
{% if rows_in_clear is defined and rows_in_clear %}

**Before you share this folder**, delete `data/`: it holds the training rows in clear text.
{% endif %}
"""


def model_card(config: FinetuneConfig, manifest: dict[str, Any]) -> str:
    """Return the model card of a run, in Markdown."""
    import jinja2

    template = jinja2.Environment(
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    ).from_string(_CARD)
    is_adapter = config.method != "full" and "merged_into" not in manifest
    return template.render(config=config, is_adapter=is_adapter, **manifest)
