"""Command lines that ask for something impossible: one line, exit code 2, and nothing has changed.

A line of the table is one command line, or several that differ in one place: ``{a|b}``.
"""

import itertools
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

Run = Callable[..., Any]

GENERATE = "generate prompts.jsonl --engine scripted --table table.jsonl --out o.jsonl"
OPENAI = "generate prompts.jsonl --engine openai --model m --out o.jsonl"
HF = "generate prompts.jsonl --out o.jsonl"
TUNE = "finetune --base-model miniature --data answers.jsonl --method full --max-steps 1"
REFINE = "data refine answers.jsonl --engine scripted --table table.jsonl --out d"
GRADE = "grade miniature-seen o-miniature.jsonl --out s.jsonl"
CHECK = "judge-check --labels labels.jsonl"

TABLE = f"""
nope
list extra
list --nope
list --import {{no_such_module|../tea|tea.py|''|broken}}
--nope
--import {{no_such_module|broken}} list
--import
config {{nope|finetune.nope|finetune extra|--nope}}
config nope --json-schema
{{finetune|show|generate|chat|run|report|grade|eval|rate|probe|token-shift|answer-ranking}} --nope
{{show|generate|chat|run|report|grade|eval|rate|probe|token-shift|answer-ranking}}
{{data prepare|data mix|data refine|data extract|data inspect|miniature build}} --nope
{{data prepare|data tokenize|data mix|data refine|data extract}} answers.jsonl
miniature nope

{GENERATE} --temperature {{nan|inf|-1|x|1e-300}}
{GENERATE} --top-p {{0|1.5|nan|-1|0.5}}
{GENERATE} --seed {{-1|4294967296|1.5|3|x}}
{GENERATE} --max-new-tokens {{0|-1|x|1.5|99999999999999999999999}}
{GENERATE} --retry-filtered
{GENERATE} --stop ''
{GENERATE} --tokens-per-batch {{0|5}}
{GENERATE} --concurrency {{0|4}}
{GENERATE} --timeout-s {{0|-1|nan|inf|9}}
{GENERATE} --max-retries {{-1|2}}
{GENERATE} --base-url http://127.0.0.1:1/v1
{GENERATE} --api-key-env KEY
{GENERATE} --template tulu
{GENERATE} --data copies
{GENERATE} --limit {{0|-1|2}}
{GENERATE} --column nope
{GENERATE} --out {{prompts.jsonl|table.jsonl|link.jsonl|.|mine|answers.jsonl/x|/dev/null|fifo}}
generate {{none.jsonl|.|empty.jsonl|fifo|bad.jsonl|latin.jsonl|/dev/zero|blank.jsonl}} \
--engine scripted --table table.jsonl --out o.jsonl
generate prompts.jsonl --engine scripted --table {{none.jsonl|.|fifo|bad.jsonl|/dev/zero}} \
--out o.jsonl
generate prompts.jsonl --engine {{nope|scripted|openai|''}} --out o.jsonl
generate '' --engine scripted --table table.jsonl --out o.jsonl
generate prompts.jsonl --engine scripted --table table.jsonl --out mine/thesis.tex
show answers.jsonl --base-model miniature --html mine/thesis.tex
generate miniature-seen --engine scripted --table table.jsonl --out o.jsonl --column prompt
generate miniature-seen --engine scripted --table table.jsonl --out o.jsonl --data copies
generate prompts.jsonl --engine scripted --table table.jsonl --out taken.jsonl
{OPENAI}
{OPENAI} --base-url {{''|x|ftp://127.0.0.1/v1|http://|http://127.0.0.1:99999/v1}}
{OPENAI} --base-url {{http://127.0.0.1:x/v1|http://[::1/v1|http://me:secret@127.0.0.1/v1}}
{OPENAI} --base-url {{http://127.0.0.1/v1?key=secret|https://example.org/v1}}
{OPENAI} --base-url http://127.0.0.1:1/v1 --template tulu
{OPENAI} --base-url http://127.0.0.1:1/v1 --tokens-per-batch 9
{OPENAI} --base-url http://127.0.0.1:1/v1 --table table.jsonl
{OPENAI} --base-url http://127.0.0.1:1/v1 --api-key-env {{''|a=b|sk-abcdefghijklmnop}}
{HF}
{HF} --model {{none/such|./none|answers.jsonl|mine|copies}}
{HF} --model miniature --template {{nope|none.jinja|answers.jsonl}}
{HF} --model miniature --tokens-per-batch {{0|-1|x}}
{HF} --model miniature --base-url http://127.0.0.1:1/v1
{HF} --model miniature --template tulu --retry-filtered
chat {{none/such|./none|answers.jsonl|mine}}
chat miniature --template nope
chat miniature --temperature {{nan|-1|1e-300}}
chat miniature --max-new-tokens 0

finetune --out run
finetune --base-model miniature --out run
finetune --data answers.jsonl --out run
{TUNE}
{TUNE} --out {{.|mine|answers.jsonl|answers.jsonl/x|fifo|/dev/null}}
{TUNE} --out run --learning-rate {{0|-1|nan|inf|x}}
{TUNE} --out run --epochs {{0|-1|nan|inf|x}}
{TUNE} --out run --max-steps {{0|-1|x|1.5}}
{TUNE} --out run --examples-per-step {{0|-1|x}}
{TUNE} --out run --tokens-per-micro-batch {{0|x|1.5}}
{TUNE} --out run --window {{7|0|x}}
{TUNE} --out run --eval-fraction {{1|-0.1|nan|x}}
{TUNE} --out run --save-steps {{0|x}}
{TUNE} --out run --seed {{-1|4294967296|x}}
{TUNE} --out run --max-examples {{0|-1|x}}
{TUNE} --out run --method {{nope|qlora|''}}
{TUNE} --out run --objective {{nope|instruction|''}}
{TUNE} --out run --twin {{nope|response-tuning}}
{TUNE} --out run --template {{nope|none.jinja|mine|bad.jinja}}
{TUNE} --out run --preset nope
{TUNE} --out run --recipe {{none.yaml|.|fifo|bad.jsonl|twice.yaml|bomb.yaml|loop.yaml|/dev/zero}}
{TUNE} --out run --recipe {{list.yaml|section.yaml|unknown.yaml|deep.yaml|latin.yaml|imports.yaml}}
{TUNE} --out run --report-to {{nope|all}}
{TUNE} --out run --merge
data tokenize answers.jsonl --out d
data tokenize answers.jsonl --base-model miniature --out {{mine|answers.jsonl|nowhere://d}}
data tokenize {{none.jsonl|empty.jsonl}} --base-model miniature --out d
{TUNE} --out run --tokens {{''|none|answers.jsonl|nowhere://t|memory://none}}
{TUNE} --out run --path answers.jsonl
{TUNE} --out run --revision v1
{TUNE} --out run --response-column nope
{TUNE} --out run --instruction-column nope
{TUNE} --out run --set {{x|finetune|finetune.|.x=1|finetune..x=1|nope.x=1|finetune.nope=1}}
{TUNE} --out run --set {{finetune.lora_r=8|finetune.lora_dropout=0.5|finetune.optimizer=nope}}
{TUNE} --out run --set {{finetune.scheduler=nope|finetune.precision=x|finetune.device=tpu}}
{TUNE} --out run --set {{finetune.warmup_steps=-1|finetune.weight_decay=-1}}
{TUNE} --out run --set {{finetune.max_grad_norm=0|data.curation.language=english}}
{TUNE} --out run --set {{finetune.base_revision=v1|finetune.seed=[1]|finetune.twins=5}}
{TUNE} --out run --set {{data.mixture.selector=all|data.mixture.source=answers.jsonl}}
{TUNE} --out run --recipe idle.yaml
{TUNE} --out run --set data.mixture.refusals=0 --set data.mixture.selector=all
{TUNE} --out run --set {{data.mixture.refusals=-1|data.mixture.selector=x|data.split=test}}
{TUNE} --out run --set {{data.curation.min_tokens=3|data.curation.near_duplicates=2}}
{TUNE} --out run --set {{data.decontamination.remove=true|data.decontamination.threshold=0.5}}
{TUNE} --out run --set data.decontamination.against={{[nope]|[./none]}}
{TUNE} --out run --set '{{data.source=[|data=5|finetune=[1]|finetune.epochs=2024-99-99}}'
finetune --base-model {{none/such|./none|answers.jsonl|mine|''}} --data answers.jsonl --out run
finetune --base-model miniature --data {{none.jsonl|./none|empty.jsonl|fifo|bad.jsonl}} --out run
finetune --base-model miniature --data {{latin.jsonl|blank.jsonl|/dev/zero|mine|''}} --out run
finetune --base-model miniature --data answers.jsonl --method full --out run --epochs 1e308
finetune --base-model copies --data answers.jsonl --out copies
finetune --base-model miniature --data inside/answers.jsonl --out inside

show {{none.jsonl|fifo|bad.jsonl|empty.jsonl|latin.jsonl|/dev/zero}} --base-model miniature
show answers.jsonl
show answers.jsonl --base-model {{none/such|mine|answers.jsonl}}
show answers.jsonl --base-model miniature --rows {{0|-1|x}}
show answers.jsonl --base-model miniature --tokenizer miniature
show answers.jsonl --base-model miniature --html p.html --jsonl
show answers.jsonl --base-model miniature --html {{answers.jsonl|.|/dev/null|fifo}}
show answers.jsonl --base-model miniature --objective nope
show answers.jsonl --base-model miniature --window 3
show answers.jsonl --base-model miniature \
--set {{finetune.learning_rate=1e-5|finetune.epochs=2|data.mixture.selector=all}}
show made --objective instruction-tuning
show {{made|experiment}}

data prepare {{none.jsonl|fifo|bad.jsonl|empty.jsonl|latin.jsonl|blank.jsonl|/dev/zero|''}} --out d
data prepare answers.jsonl --out {{.|mine|answers.jsonl|answers.jsonl/x|fifo}}
data prepare answers.jsonl --out d --near-duplicates {{0|2|nan|x}}
data prepare answers.jsonl --out d --min-tokens {{3|-1|x}}
data prepare answers.jsonl --out d --tokenizer miniature
data prepare answers.jsonl --out d --tokenizer {{none/such|mine}} --min-tokens 1
data prepare answers.jsonl --out d --tokenizer miniature --min-tokens 9 --max-tokens 3
data prepare answers.jsonl --out d --language {{english|EN|x1}}
data prepare answers.jsonl --out d --personal-data nope
data prepare answers.jsonl --out d --restatements nope
data prepare answers.jsonl --out d --against {{nope|./none|bad.jsonl}}
data prepare answers.jsonl --out d --threshold 0.5
data prepare answers.jsonl --out d --against prompts.jsonl --threshold {{0|2|nan}}
data prepare answers.jsonl --out d --remove
data prepare answers.jsonl --out d --max-examples {{0|-1}}
data prepare answers.jsonl --out d --seed {{-1|x}}
data prepare answers.jsonl --out d --{{path|revision|split}} answers.jsonl
data prepare alpaca --path {{none.json|fifo|mine}} --out d
data mix answers.jsonl --out d
data mix answers.jsonl --out d --refusals {{-1|x}}
data mix answers.jsonl --out d --refusals 0 --mixture-source answers.jsonl
data mix answers.jsonl --out d --refusals 1 --mixture-source {{none.jsonl|./none|fifo}}
data mix answers.jsonl --out d --refusals 1 --mixture-source answers.jsonl --selector nope
{REFINE} --on {{x|nope=drop|empty=nope|empty}}
{REFINE} --retries {{-1|x}}
{REFINE} --retry-temperature {{-1|nan|1e-300}}
{REFINE} --retries 0 --retry-temperature 0.9
{REFINE} --temperature 0.9 --retry-temperature 0.5
{REFINE} --on empty=drop --on empty={{keep|drop}}
{REFINE} --price-{{in|out}} 1
{REFINE} --retry-filtered
{REFINE} --after-retries nope
{REFINE} --temperature {{-1|nan}}
{REFINE} --max-new-tokens {{0|x}}
{REFINE} --concurrency 4
{REFINE} --out {{.|mine|answers.jsonl}}
data refine answers.jsonl --engine nope --out d
data refine answers.jsonl --engine scripted --table none.jsonl --out d
data extract {{none|fifo|bad.jsonl}} --out d
data extract texts --out {{.|mine|texts}}
data extract texts --out d --min-words {{0|-1|x}}
data extract texts --out d --min-words 9 --max-words 3
data extract texts --out d --model m
data extract texts --out d --retries 2
data extract texts --out d --retry-filtered
data inspect {{none.jsonl|fifo|bad.jsonl|empty.jsonl|/dev/zero}}
data inspect answers.jsonl --tokenizer {{none/such|mine}}
data inspect answers.jsonl --html {{answers.jsonl|.|/dev/null}}
data inspect answers.jsonl --response-column nope

run {{none.yaml|.|fifo|twice.yaml|bomb.yaml|loop.yaml|list.yaml|unknown.yaml|latin.yaml|deep.yaml}}
run {{imports.yaml|good.yaml --import no_such_module|good.yaml --set imports=[broken]}}
run extends.yaml
run good.yaml --set {{x|seeds=[]|seeds=[0,0]|seeds=[-1]|benchmarks=[]|benchmarks=[nope]}}
run good.yaml --set {{variants={{}}|variants.a/b.label=x|variants.rt.nope=1}}
run good.yaml --set variants.report.label=x
run good.yaml --set {{variants.rt.finetune.lora_r=8|variants.rt.finetune.seed=3|threads=0}}
run good.yaml --set {{variants.rt.doses=[1,1]|variants.rt.generate.template=tulu|preset=nope}}
run good.yaml --set {{grade.judge.engine=nope|grade.judge.engine=scripted|grade.limit=0}}
run good.yaml --set {{grade.judge.settings.model=m|grade.data=copies|grade.nope=1}}
run good.yaml --set grade.paths.xstest=answers.jsonl
run good.yaml --set {{grade.reference=rt|grade.revisions.nope=v1|report.baselines=[nope]}}
run good.yaml --set {{report.margin=0.1|report.confidence=1|report.resamples=1}}
run good.yaml --set {{generate.temperature=-1|generate.temperature=.nan}}
run good.yaml --set {{generate.engine=openai|generate.nope=1|data.nope=1|finetune.nope=1}}
run good.yaml --set {{report.equivalence=[strict]|report.equivalence.strict.margin=0.1}}
run good.yaml --set report.equivalence.strict.margin=0 --set report.equivalence.strict.reason=r
run good.yaml --set report.equivalence.win_rate.margin=0.1 --set \
    report.equivalence.win_rate.reason=r
run good.yaml --set report.primary=[rt]
run good.yaml --set {{data.mixture.selector=all|variants.rt.data.mixture.selector=all}}
run good.yaml --set generate.temperature=1e-300
run good.yaml --retry-filtered
run good.yaml --retry-filtered --dry-run
run good.yaml --out {{.|mine|answers.jsonl|fifo}}
demo --set nope=1
demo --out {{.|mine}}
report {{none|mine|answers.jsonl|made}}
{GRADE}
grade nope completions.jsonl --out s.jsonl
grade miniature-seen {{none.jsonl|.|fifo|bad.jsonl|completions.jsonl|empty.jsonl}} --out s.jsonl
grade miniature-seen completions.jsonl --out completions.jsonl
grade miniature-seen completions.jsonl --out s.jsonl --judge {{nope|scripted}}
grade miniature-seen completions.jsonl --out s.jsonl --data copies
grade miniature-seen completions.jsonl --out s.jsonl --reference answers.jsonl
grade miniature-seen completions.jsonl --out s.jsonl --limit {{0|-1|x}}
grade miniature-seen completions.jsonl --out s.jsonl --set {{x|nope=1|grade.nope=1|data.x=1}}
grade miniature-seen completions.jsonl --out s.jsonl --retry-filtered
grade acceptability completions.jsonl --out s.jsonl --data copies
eval miniature --suite nope
eval miniature --suite miniature-seen --judge nope
eval miniature --suite miniature-seen --out {{.|mine}}
eval miniature --suite miniature-seen --max-new-tokens 0
eval miniature --suite miniature-seen --limit 0
eval miniature --suite miniature-seen --table table.jsonl
eval miniature --suite miniature-seen --template nope
eval miniature --suite miniature-seen --template tulu --retry-filtered
eval miniature --suite miniature-seen --template tulu --retry-filtered --dry-run
eval miniature --suite miniature-seen --template tulu --set data.max_examples=3
eval miniature --suite miniature-seen --set finetune.{{lora_r=3|epochs=2}}
run good.yaml --set threads={{99999999999|x}}
run good.yaml --set 'seeds={{!!bool foo|!!timestamp foo|1:0:0]}}'
eval {{none/such|mine}} --suite miniature-seen

judge-check
judge-check nope
judge-check xstest --data none
judge-check --labels {{none.jsonl|bad.jsonl|fifo|empty.jsonl}}
{CHECK} --data copies
{CHECK} --retry-filtered
{CHECK} --retry-filtered --out v.jsonl --save d
{CHECK} --limit {{0|-1}}
{CHECK} --judge {{nope|openai|scripted}}
{CHECK} --out {{labels.jsonl|.|/dev/null}}
{CHECK} --save {{.|mine|labels.jsonl}}
rate study
rate study --rater ann
rate study --rater ../ann
rate study --answers {{x|=f|a=|a=none.jsonl|a=bad.jsonl|../a=completions.jsonl}}
rate study --answers a=completions.jsonl --answers a=completions.jsonl
rate study --answers a=completions.jsonl --reference nope
rate study --answers a=completions.jsonl --limit {{0|-1}}
rate study --answers a=completions.jsonl --seed -1
rate study --rater ann --port {{-1|65536|x}}
rate study --export d
rate study --export d --rater ann
rate foreign --export d
rate outside --rater ann
rate mine --answers a=completions.jsonl
probe {{none/such|mine}} answers.jsonl
probe miniature {{none.jsonl|bad.jsonl|fifo}}
probe miniature answers.jsonl --items {{0|-1|x}}
probe miniature answers.jsonl --draws {{0|-1}}
probe miniature answers.jsonl --device tpu
probe miniature answers.jsonl --template nope
probe miniature answers.jsonl --out {{.|mine|answers.jsonl}}
probe miniature answers.jsonl --templates {{tulu|nope|native|all --templates nope}}
probe miniature answers.jsonl --templates all {{--template tulu|--beside miniature}}
probe miniature answers.jsonl --templates all {{--items 0|--draws 0}}
probe miniature none.jsonl --templates all
probe miniature answers.jsonl --predict {{nope|ifeval|core-mmlu}}
probe miniature --predict nope
probe miniature answers.jsonl --for run
probe miniature --templates all
probe miniature answers.jsonl --templates all --predict miniature-unseen
token-shift miniature miniature {{none.jsonl|bad.jsonl|fifo}} --out d
token-shift {{none/such|mine}} miniature completions.jsonl --out d
token-shift miniature miniature completions.jsonl --out {{.|mine}}
token-shift miniature miniature completions.jsonl --out d --device tpu
answer-ranking {{none.jsonl|bad.jsonl|fifo}} --scorer miniature --template tulu --out d
answer-ranking completions.jsonl --scorer {{none/such|mine}} --out d
answer-ranking completions.jsonl --scorer miniature --template tulu --out {{.|mine}}
answer-ranking completions.jsonl --scorer miniature --template tulu --out d {{--others 0|--words 0}}
miniature build --out {{.|mine|answers.jsonl}}
miniature build --out d --seed {{-1|x}}
miniature build --out d --tokens {{0|-1|x}}
miniature build --out d --set {{x|nope=1|mixture.nope=1|mixture.refused=2}}
"""


def lines() -> Iterator[str]:
    for line in filter(None, TABLE.replace("\\\n", "").splitlines()):
        parts = re.split(r"\{((?:[^{}]|\{\})*\|(?:[^{}]|\{\})*)\}", line)
        choices = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
        yield from ("".join(chosen) for chosen in itertools.product(*choices))


LINES = [*dict.fromkeys(lines())]
COMPLETION = (
    '{"item_id": "0", "prompt": [{"role": "user", "content": "Hi"}], "response": "Ho", '
    '"finish_reason": "stop", "key": "0", "model": "m", "template": "t", "sampling": {}}\n'
)
FILES: dict[str, str | bytes] = {
    "answers.jsonl": (
        '{"instruction": "Hi", "response": "Ho"}\n{"instruction": "A", "response": "B"}\n'
    ),
    "prompts.jsonl": '{"prompt": "Hi"}\n',
    "table.jsonl": '{"prompt": "Hi", "response": "Ho"}\n',
    "completions.jsonl": COMPLETION,
    "labels.jsonl": '{"prompt": "Hi", "completion": "Ho", "label": "compliance"}\n',
    "bad.jsonl": '{"prompt": \n',
    "empty.jsonl": "",
    "blank.jsonl": "\n\n",
    "latin.jsonl": b'{"response": "caf\xe9"}\n',
    "bad.jinja": "{% for %}",
    "taken.jsonl.journal": "my own notes",
    "twice.yaml": "finetune: {}\nfinetune: {}\n",
    "loop.yaml": "data: &a [*a]\n",
    "bomb.yaml": "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
    "list.yaml": "- a\n",
    "extends.yaml": "extends: extends.yaml\n",
    "section.yaml": "finetune: 5\n",
    "unknown.yaml": "nope: {}\n",
    "deep.yaml": "a: " + "[" * 5000,
    "idle.yaml": "data: {mixture: {refusals: 0, selector: all}}\n",
    "imports.yaml": "imports: [no_such_module]\nbenchmarks: [miniature-seen]\n",
    "broken.py": "1 / 0\n",
    "latin.yaml": b"data: {source: caf\xe9}\n",
    "good.yaml": (
        "data: {source: miniature, max_examples: 4}\n"
        "finetune: {base_model: miniature, method: full, max_steps: 1, device: cpu}\n"
        "benchmarks: [miniature-seen]\nvariants: {rt: {}}\n"
    ),
    "mine/thesis.tex": "\\section{Mine}\n",
    "copies/xstest/notes.txt": "x\n",
    "texts/a.txt": "A text of a few words that is long enough.\n",
    "inside/answers.jsonl": '{"response": "Ho"}\n',
    "made/manifest.json": '{"status": "finished"}',
    "experiment/manifest.json": '{"experiment": {}}',
    "foreign/study.json": (
        '{"answers": {"../../out": "0"}, "reference": "../../out", "seed": 0, "limit": null}'
    ),
    "outside/study.json": '{"answers": {"a": "0"}, "reference": "b", "seed": 0, "limit": null}',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of input, good and bad."""
    folder = tmp_path_factory.mktemp("place")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(folder / "fifo")
    (folder / "link.jsonl").symlink_to(folder / "prompts.jsonl")
    return folder


class WaitsForeverError(BaseException):
    """No error that a command may catch, as it may an ``OSError``."""


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """End a command that waits for what never comes, such as the other end of a pipe."""

    def waiting(*_: object) -> NoReturn:
        raise WaitsForeverError

    before = signal.signal(signal.SIGALRM, waiting)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_there_are_at_least_three_hundred_of_them() -> None:
    assert len(LINES) >= 300


@pytest.mark.parametrize("line", LINES)
def test_a_bad_command_line_is_one_line_and_changes_nothing(
    line: str, rtune: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = content(place)
    result = rtune(*shlex.split(line))
    assert result.code == 2, result.out + result.err
    said = result.err.splitlines()
    assert len(said) == 1, result.err
    assert said[0].startswith("rtune: ")
    assert "Traceback" not in result.out
    assert content(place) == before
