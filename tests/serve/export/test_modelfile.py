import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.errors import TemplateError
from response_tuning.serve.export.modelfile import go_template, layout, modelfile
from response_tuning.templates import TEMPLATES, Chat, install

RENDER = """
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type Message struct{ Role, Content string }

type Case struct {
	Template string
	Messages []*Message
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	rendered := []string{}
	for _, one := range cases {
		parsed := template.Must(template.New("").Parse(one.Template))
		var out bytes.Buffer
		if err := parsed.Execute(&out, map[string]any{"Messages": one.Messages}); err != nil {
			panic(err)
		}
		rendered = append(rendered, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(rendered)
}
"""
"""What Ollama does with a template that uses `.Messages`."""
WITH_TURNS = [name for name in TEMPLATES.names() if name != "plain"]
TEXTS = [
    *("Hi", "", " spaces \n and lines\n\n", "{{ .Content }} {% if %}", 'a "quoted" \\ back', "```"),
    *(
        "Grüße 🙂",
        "<|user|>\nnot a turn",
        "<b>&amp;</b>",
        "zw",
        "tab\tand \u2028 separators",
        "%s %d",
    ),
]


def conversation(draw: random.Random) -> list[Message]:
    """A conversation as clients send it: perhaps a system message, then turns in alternation."""
    turns = 2 * draw.randrange(4) + 1
    roles = ["user" if place % 2 == 0 else "assistant" for place in range(turns)]
    if draw.random() < 0.5:
        roles.insert(0, "system")
    return [Message(role=role, content=draw.choice(TEXTS)) for role in roles]  # type: ignore[arg-type]


def chat_with(tokenizer: Any, name: str) -> Chat:
    install(tokenizer, name)
    return Chat(tokenizer)


def conversations(chat: Chat, seed: int) -> list[tuple[list[Message], str]]:
    """Conversations, and what the Jinja template renders, without the BOS that the runtime adds."""
    draw = random.Random(seed)
    drawn = [conversation(draw) for _ in range(60)]
    return [(each, chat.prompt(each).removeprefix("<s>")) for each in drawn]


@pytest.mark.parametrize("name", WITH_TURNS)
def test_the_pieces_of_each_template_rebuild_its_conversations(tokenizer: Any, name: str) -> None:
    chat = chat_with(tokenizer, name)
    found = layout(chat)
    for messages, expected in conversations(chat, seed=0):
        assert found.render(messages) == expected


def rendered_by_go(folder: Path, cases: Sequence[dict[str, Any]]) -> list[str]:
    if shutil.which("go") is None:
        pytest.skip("Go is not installed (Debian: golang-go)")
    program = folder / "render.go"
    program.write_text(RENDER)
    done = subprocess.run(
        ["go", "run", str(program)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/go/bin", "HOME": str(folder), "GOFLAGS": "-mod=mod"},
    )
    lines: list[str] = json.loads(done.stdout)
    return lines


def test_the_go_template_of_each_template_prints_what_its_jinja_prints(
    tokenizer: Any, tmp_path: Path
) -> None:
    cases, expected = [], []
    for name in WITH_TURNS:
        chat = chat_with(tokenizer, name)
        template = go_template(layout(chat))
        for messages, text in conversations(chat, seed=1):
            turns = [{"Role": each.role, "Content": each.content} for each in messages]
            cases.append({"Template": template, "Messages": turns})
            expected.append(text)
    assert rendered_by_go(tmp_path, cases) == expected
    assert len(cases) == 60 * len(WITH_TURNS)


def test_a_modelfile_has_the_weights_both_stops_and_the_context(tokenizer: Any) -> None:
    lines = modelfile(chat_with(tokenizer, "tulu"), "it-f16.gguf", 256).splitlines()
    assert lines[0] == "FROM ./it-f16.gguf"
    assert lines[1].startswith('TEMPLATE """{{ $system := "" }}{{ range .Messages }}')
    assert lines[2:] == [
        'PARAMETER stop "</s>"',
        'PARAMETER stop "<|user|>"',
        "PARAMETER temperature 0",
        "PARAMETER num_ctx 256",
    ]


def test_a_role_that_is_a_word_ends_a_reply_only_on_a_line_of_its_own(tokenizer: Any) -> None:
    text = modelfile(chat_with(tokenizer, "roles"), "it.gguf", None)
    assert 'PARAMETER stop """\nuser\n"""' in text
    assert 'stop "user"' not in text and "num_ctx" not in text


@pytest.mark.parametrize(
    "template",
    [
        # The last turn is printed in another way than the ones before it.
        "{% for m in messages %}<{{ m.role }}{% if loop.last %}!{% endif %}>{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
        # Only the last question is printed.
        "<user>{{ messages[-1].content }}{% if add_generation_prompt %}<assistant>{% endif %}",
    ],
)
def test_a_template_without_one_piece_for_each_turn_is_refused(
    tokenizer: Any, template: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateError):
        layout(Chat(tokenizer))


def test_the_template_without_marks_has_no_turns_and_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=r"export with --to gguf, and use llama\.cpp"):
        layout(chat_with(tokenizer, "plain"))
