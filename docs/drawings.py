"""Draw the pictures of the concept pages: ``python docs/drawings.py``.

Each picture is one SVG file with both colour schemes, chosen by the reader's setting. The same
versions draw the same bytes; a test draws them again and compares.
"""

import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from tokenizers import Tokenizer

import response_tuning

OUT = Path(__file__).parent / "concepts"
BASE = Path(response_tuning.__file__).parent / "miniature" / "base"
WIDTH = 720
"""Width of every picture, in pixels."""

STYLE = """
svg{--paper:#fff;--ink:#1b1f24;--soft:#59636e;--line:#c4ccd4;--box:#f3f5f7;--on:#bfe3c9;--off:#e4e8ec;--bad:#f6c9c4;--mark:#1f6f43}
@media(prefers-color-scheme:dark){svg{--paper:#131416;--ink:#e6e9ec;--soft:#9aa4ae;--line:#4a535c;--box:#1f2327;--on:#1f5a36;--off:#33393f;--bad:#6b2b27;--mark:#7fd6a1}}
text{font:14px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink)}
.soft{fill:var(--soft);font-size:13px}.bold{font-weight:600}
.code{font:13px ui-monospace,Menlo,Consolas,monospace}
rect{fill:var(--box);stroke:var(--line)}.on{fill:var(--on)}.off{fill:var(--off)}.bad{fill:var(--bad)}
path{stroke:var(--soft);fill:none;stroke-width:1.5}.dot{fill:var(--mark);stroke:none}.thick{stroke:var(--mark);stroke-width:3}
.head{fill:var(--soft);stroke:none}.paper{fill:var(--paper);stroke:none}
"""


def picture(height: int, title: str, parts: Sequence[str]) -> str:
    """Return an SVG file; ``title`` says in words what a reader sees."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    paper = f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
    body = "\n".join(parts)
    return (
        f"{head}\n<title>{escape(title)}</title><style>{STYLE}</style>\n{paper}\n{body}\n</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One line of text with its baseline at ``y``."""
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" xml:space="preserve"'
    return f'<text {place} class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, *lines: str, kind: str = "") -> str:
    """A rectangle with centred lines of text; the first one is bold."""
    first = y + height / 2 - 9 * (len(lines) - 1) + 5
    words = [
        text(x + width / 2, first + 18 * n, line, "soft" if n else "bold", "middle")
        for n, line in enumerate(lines)
    ]
    shape = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" class="{kind}"/>'
    )
    return "\n".join([shape, *words])


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A straight arrow, to the right or downwards."""
    across = to_x - x > abs(to_y - y)
    tip = f"M{to_x:g} {to_y:g}l-8 -4v8z" if across else f"M{to_x:g} {to_y:g}l-4 -8h8z"
    return f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}"/><path class="head" d="{tip}"/>'


def strip(x: float, y: float, pieces: Sequence[tuple[str, str]]) -> list[str]:
    """Return boxes for tokens in a row: (text, kind)."""
    parts = []
    for words, kind in pieces:
        width = 8 * len(words) + 8
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="24" class="{kind}"/>')
        parts.append(text(x + width / 2, y + 17, words, "code", "middle"))
        x += width
    return parts


def tokens(words: str) -> list[str]:
    """The tokens of the miniature's tokenizer, with marks for spaces and line ends."""
    ids = Tokenizer.from_file(str(BASE / "tokenizer.json")).encode(words, add_special_tokens=False)
    return [token.replace("Ġ", "␣").replace("Ċ", "↵") for token in ids.tokens]


def response_tuning_picture() -> str:
    """A base knows pairs; response tuning shows it answers alone."""
    return picture(
        190,
        "Pre-training teaches which answer belongs to which question. Response tuning shows "
        "answers alone. The tuned model answers questions.",
        [
            box(16, 40, 190, 76, "base model", "has read questions", "and answers in documents"),
            arrow(206, 78, 262, 78),
            box(
                262,
                40,
                196,
                76,
                "response tuning",
                "your answers,",
                "without any prompt",
                kind="on",
            ),
            arrow(458, 78, 514, 78),
            box(514, 40, 190, 76, "assistant", "answers prompts", "in the form of your answers"),
            text(111, 148, "knows what to answer", "soft", "middle"),
            text(360, 148, "learns how to answer, and to stop", "soft", "middle"),
            text(609, 148, "both together", "soft", "middle"),
        ],
    )


def objective_picture() -> str:
    """The same example under four objectives."""
    rows = [
        ("response-tuning", "", "its answer", "on"),
        ("instruction-tuning", "its question", "its answer", "on"),
        ("shuffled-pairs", "another question", "its answer", "on"),
        ("decoupled", "its question, hidden", "its answer", "on"),
    ]
    parts = []
    for n, (name, before, after, kind) in enumerate(rows):
        y = 20 + 44 * n
        parts.append(text(16, y + 22, name, "code"))
        if before:
            parts.append(box(190, y, 210, 32, before, kind="bad" if n == 2 else "off"))
        parts.append(box(400, y, 110, 32, "opening", kind="off"))
        parts.append(box(510, y, 140, 32, after, kind=kind))
        parts.append(box(650, y, 54, 32, "stop", kind=kind))
    return picture(
        226,
        "What stands before the answer under four objectives; the loss is on the answer and the "
        "stop token in all of them.",
        [*parts, text(704, 214, "green: carries loss", "soft", "end")],
    )


def twins_picture() -> str:
    """Two arms that differ in one thing."""
    parts = [text(170, 24, "step 1", "soft"), text(442, 24, "step 2", "soft")]
    for row, (name, prompted) in enumerate(
        (("response tuning", False), ("instruction tuning", True))
    ):
        y = 36 + 56 * row
        parts.append(text(16, y + 24, name, "bold"))
        for n, answer in enumerate(("A", "B", "C", "D")):
            x = 170 + 136 * n
            parts.append(box(x, y, 50, 36, f"ask {answer}" if prompted else "none", kind="off"))
            parts.append(box(x + 50, y, 76, 36, f"answer {answer}", kind="on"))
    return picture(
        170,
        "Twins have the same answers in the same order and the same steps; only the text before an "
        "answer differs.",
        [
            *parts,
            text(704, 158, "the same answers, tokens with loss, order and steps", "soft", "end"),
        ],
    )


def mask_picture() -> str:
    """The real tokens of one row of the miniature, under two objectives."""
    question = tokens("user\nWhat is the capital of Lorenia?\n")
    opening, answer = tokens("assistant\n"), tokens("Fenwick is the capital of Lorenia.")
    trained = [(token, "on") for token in [*answer, "</s>"]]
    return picture(
        224,
        "The tokens of one row: under response tuning the opening carries no loss and the answer "
        "does; under instruction tuning the question stands before it, without loss.",
        [
            text(16, 28, "response tuning", "bold"),
            *strip(16, 40, [*((token, "off") for token in opening), *trained]),
            text(16, 104, "instruction tuning", "bold"),
            *strip(16, 116, [(token, "off") for token in question]),
            *strip(16, 146, [*((token, "off") for token in opening), *trained]),
            *strip(16, 186, [("grey", "off"), ("green", "on")]),
            text(120, 203, "read only · read and learned (carries loss)", "soft"),
        ],
    )


def template_picture() -> str:
    """One template renders the prompt everywhere, and its opening ends it."""
    parts = [box(16, 30, 150, 52, "conversation", "roles and texts"), arrow(166, 56, 216, 56)]
    parts += [
        box(216, 30, 150, 52, "template", "one Jinja file", kind="on"),
        arrow(366, 56, 416, 56),
    ]
    parts.append('<rect x="416" y="14" width="288" height="86" rx="5"/>')
    for n, line in enumerate(("<|user|>", "Is the tea hot?", "<|assistant|>")):
        parts.append(text(430, 38 + 22 * n, line, "code"))
    parts.append(text(580, 82, "◂ the opening", "soft"))
    for n, user in enumerate(("tuning", "chat", "benchmarks", "vLLM, llama.cpp, Ollama")):
        x, width = (16, 140, 264, 408)[n], (112, 112, 132, 296)[n]
        parts.append(box(x, 138, width, 34, user))
    return picture(
        190,
        "A template turns a conversation into text that ends in the assistant's opening; tuning, "
        "chat, benchmarks and servers use the same one.",
        [*parts, text(16, 128, "all read the template that is saved in the model folder", "soft")],
    )


def miniature_picture() -> str:
    """A world, a corpus, a base and questions that are held apart."""
    return picture(
        214,
        "From a world of facts come a corpus that pre-trains the base, answers for tuning, and "
        "questions for testing; entities and kinds of questions are held apart.",
        [
            box(16, 76, 140, 60, "world", "tables of facts"),
            arrow(156, 90, 212, 44),
            arrow(156, 106, 212, 106),
            arrow(156, 122, 212, 168),
            box(212, 18, 190, 52, "corpus", "13 kinds of documents"),
            box(212, 80, 190, 52, "answers", "16 kinds, 8 of 20 entities", kind="on"),
            box(212, 142, 190, 52, "questions", "13 other kinds and entities"),
            arrow(402, 44, 458, 44),
            box(458, 18, 246, 52, "base model", "2.16 million parameters"),
            arrow(402, 106, 458, 106),
            box(458, 80, 246, 52, "tuned model", "tuned on 1,000 of them", kind="on"),
            arrow(402, 168, 458, 168),
            box(458, 142, 246, 52, "scores", "graded by rule, without a judge"),
        ],
    )


def benchmark_picture() -> str:
    """Items become completions, and these become scores."""
    return picture(
        132,
        "A benchmark gives items; the model writes a completion for each; the benchmark scores it.",
        [
            box(16, 30, 150, 66, "item", "a prompt, and what", "a right answer holds"),
            arrow(166, 63, 206, 63),
            box(206, 30, 150, 66, "model", "the same template", "as in tuning"),
            arrow(356, 63, 396, 63),
            box(396, 30, 138, 66, "completion", "kept on disk", "before grading"),
            arrow(534, 63, 584, 63),
            box(584, 30, 120, 66, "scores", "one line for", "each metric", kind="on"),
        ],
    )


def judge_picture() -> str:
    """A judge is a model that is itself checked."""
    return picture(
        180,
        "A judge reads a prompt and an answer and replies with a verdict; judge-check compares its "
        "verdicts with people's labels.",
        [
            box(16, 24, 190, 52, "prompt and answer"),
            arrow(206, 50, 266, 50),
            box(266, 24, 188, 52, "judge", "a model, or rules", kind="on"),
            arrow(454, 50, 514, 50),
            box(514, 24, 190, 52, "verdict", "unreadable is counted"),
            box(16, 112, 190, 52, "answers that people", "have labelled"),
            arrow(206, 132, 300, 78),
            box(514, 112, 190, 52, "agreement", "quoted in every report"),
            arrow(420, 76, 512, 132),
            text(360, 146, "rtune judge-check", "code", "middle"),
        ],
    )


def cell_picture() -> str:
    """Variants times seeds."""
    parts = [text(260 + 116 * n, 28, f"seed {n}", "soft", "middle") for n in range(3)]
    for row, name in enumerate(("base", "rt", "it")):
        y = 40 + 46 * row
        parts.append(text(190, y + 23, name, "code", "end"))
        parts.extend(
            box(206 + 116 * n, y, 108, 36, "cell", kind="on" if (row, n) == (1, 2) else "")
            for n in range(3)
        )
    parts.append(text(16, 63, "variants", "soft"))
    parts.append(arrow(546, 104, 584, 104))
    for n, name in enumerate(("data", "finetune", "generate", "grade")):
        parts.append(box(584, 36 + 36 * n, 120, 30, name))
    return picture(
        200,
        "A run has one cell for each variant and seed; a cell holds data, model, completions and "
        "scores.",
        [*parts, text(704, 194, "any process takes the next free cell", "soft", "end")],
    )


def report_picture() -> str:
    """Two variants are joined item by item, and one interval decides."""
    parts = []
    for row, name in enumerate(("rt", "it")):
        y = 34 + 44 * row
        parts.append(text(40, y + 21, name, "code", "end"))
        marks = ("✓✓✗✓✗✓", "✓✓✓✓✗✓")[row]
        parts += [
            box(52 + 40 * n, y, 34, 32, mark, kind="on" if mark == "✓" else "off")
            for n, mark in enumerate(marks)
        ]
    parts.append(text(52, 136, "the same items, side by side", "soft"))
    parts.append(arrow(300, 72, 356, 72))
    axis, zero, margin = 84, 600, 44
    parts.append(f'<rect class="off" x="{zero - margin}" y="44" width="{2 * margin}" height="60"/>')
    parts.append(f'<path d="M380 {axis}H700"/><path d="M{zero} 40V{axis + 24}"/>')
    parts.append(
        f'<path class="thick" d="M440 {axis}H536"/><circle class="dot" cx="488" cy="{axis}" r="6"/>'
    )
    parts.append(text(488, 66, "difference", "bold", "middle"))
    parts.append(text(zero, 124, "0", "code", "middle"))
    parts.append(text(zero, 32, "margin", "soft", "middle"))
    return picture(
        156,
        "Two variants are compared on the same items; a difference has an interval, and its place "
        "relative to zero and to a margin is the verdict.",
        [*parts, text(704, 148, "the whole interval is below 0: lower", "soft", "end")],
    )


PICTURES: dict[str, Callable[[], str]] = {
    "response-tuning": response_tuning_picture,
    "objective": objective_picture,
    "twins": twins_picture,
    "mask": mask_picture,
    "template": template_picture,
    "miniature": miniature_picture,
    "benchmark": benchmark_picture,
    "judge": judge_picture,
    "variant-and-cell": cell_picture,
    "report": report_picture,
}
"""Name of a concept page -> its picture."""


def main(out: Path = OUT) -> None:
    """Write every picture into ``out``."""
    for name, draw in PICTURES.items():
        (out / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
