"""An answer as code that gives it again."""

import json
from typing import Any

from response_tuning.artifacts import Message, Sampling
from response_tuning.serve.playground.records import Answer

_LOCAL = """\
from response_tuning import EngineConfig, Message, Request, Sampling, open_engine

engine = open_engine("hf", EngineConfig(model={model!r}, template={template!r}))
prompt = [
{prompt}
]
sampling = {sampling}
(completion,) = engine.complete([Request(item_id="1", prompt=tuple(prompt))], sampling)
print(completion.response)
"""
_SERVER = """\
import os

from openai import OpenAI

client = OpenAI(base_url={url!r}, api_key=os.environ.get({variable!r}, "none"))
completion = client.chat.completions.create(
    model={model!r},
    messages=[
{messages}
    ],
{fields})
print(completion.choices[0].message.content)
"""


def as_code(answer: Answer, about: dict[str, Any]) -> str:
    """Return Python that asks for an answer again, of the pane that ``about`` describes.

    A beginning that the user chose is no part of it.
    """
    if about["kind"] == "server":
        return _server_code(answer, about)
    prompt = ",\n".join(f"    {_message(message)}" for message in answer.prompt) + ","
    model = about["base"] if answer.adapter == "off" else about["source"]
    return _LOCAL.format(
        model=model, template=_template(answer), prompt=prompt, sampling=_sampling(answer.sampling)
    )


def _template(answer: Answer) -> str | None:
    return None if answer.template_name == "native" else answer.template_name


def _message(message: Message) -> str:
    return f"Message(role={message.role!r}, content={message.content!r})"


def _sampling(sampling: Sampling) -> str:
    fields = sampling.model_dump()
    return f"Sampling({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


def _server_code(answer: Answer, about: dict[str, Any]) -> str:
    sampling = answer.sampling
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    messages = [json.loads(message.model_dump_json()) for message in answer.prompt]
    return _SERVER.format(
        url=about["source"],
        variable=about["key_variable"],
        model=about["served_model"],
        messages="\n".join(f"        {message!r}," for message in messages),
        fields="".join(f"    {name}={value!r},\n" for name, value in fields.items()),
    )
