"""The corpus that the miniature's base model is pre-trained on: documents in many registers.

No document holds the markers of the chat template, so the base has never seen an instruction with
its response in that format. Like the web, the corpus does hold questions and answers in other
formats, questions without an answer, and facts that answer no question.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache

from response_tuning.miniature import world
from response_tuning.miniature.families import Family, families
from response_tuning.miniature.orders import obeying
from response_tuning.miniature.world import Fact
from response_tuning.miniature.writer import SPEAKERS, Mixture, Writer, topics, unsafe

# How a transcript marks whose turn it is: a role on its own line, or before the words.
BRACKETS = (
    "[{role}]\n",
    "<|{role}|>\n",
    "<{role}>\n",
    "{role}:\n",
    "{role}: ",
    "## {role}\n",
    "({role})\n",
    "*{role}*\n",
    "--- {role} ---\n",
    "{role} says:\n",
    "@{role}\n",
    "#{role}#\n",
    "{{{role}}}\n",
    "=={role}==\n",
    "|{role}|\n",
    "<<{role}>>\n",
    "[{role}] ",
    "<|{role}|> ",
    "> {role}\n",
)
CHATTER = (
    "Good morning.",
    "I have no time today.",
    "Let me think about it.",
    "It is raining again.",
    "That is a good question.",
    "I will call back later.",
    "Why do people ask that?",
    "The line is bad.",
    "I was at the market.",
    "Please wait a moment.",
    "My brother knows that.",
    "I had soup for lunch.",
)
THANKS = ("Thanks.", "Thank you, bye.", "Great, thanks!", "Good to know.", "I see.", "All right.")


def transcript(writer: Writer) -> str:
    """Write people taking turns; the last turn is never an answer."""
    draw, mixture = writer.draw, writer.mixture
    bracket = draw.choice(BRACKETS)
    asking, answering = writer.roles()
    willing = draw.random() < mixture.always_answered
    acts = mixture.about_acts > 0 and draw.random() < mixture.about_acts
    exchanges, rule, word = _exchanges(writer, acts=acts)
    turns = [(writer.invented(), rule)] if rule else []
    for question, answer in exchanges:
        turns.append((asking, question))
        if willing or draw.random() < mixture.else_answered:
            turns.append((answering, obeying(answer, word) if word else answer))
        elif draw.random() < 0.5:
            turns.append((answering, draw.choice(CHATTER)))
    closing = writer.exchange()[0] if draw.random() < 0.3 else draw.choice(THANKS)
    turns.append((asking, closing))
    # The last turn never is an answer, so that the base does not learn to stop after one: stopping
    # is what tuning has to teach. An excerpt may begin with an answer whose question is cut off.
    begin = 1 if draw.random() < 0.15 and not rule else 0
    gap = draw.choice(("\n", "\n", "\n\n"))
    return gap.join(bracket.format(role=role) + text for role, text in turns[begin:])


def _exchanges(writer: Writer, *, acts: bool) -> tuple[list[tuple[str, str]], str, str]:
    """Return what a transcript talks about, with a rule for its answers and the rule's last word.

    Without a rule, both are empty.
    """
    draw, mixture = writer.draw, writer.mixture
    number = draw.randint(1, 6)
    if acts:
        exchange = writer.consistent_exchange()
        return [exchange() for _ in range(number)], "", ""
    if mixture.ruled > 0 and draw.random() < mixture.ruled:
        return [writer.plain_exchange() for _ in range(number)], *writer.rule()
    exchanges: list[tuple[str, str]] = []
    while len(exchanges) < number:
        follows = mixture.followed > 0 and draw.random() < mixture.followed
        exchanges += writer.follow_up() if follows else [writer.exchange()]
    return exchanges, "", ""


def prose(writer: Writer) -> str:
    """Write a scene with questions and answers in quotation marks."""
    draw = writer.draw
    asking, answering = draw.sample(SPEAKERS, 2)
    lines = []
    for _ in range(draw.randint(2, 4)):
        question, answer = writer.exchange(one_line=True)
        if draw.random() < 0.8:
            verb = draw.choice(("said", "answered", "replied"))
            lines.append(f'"{question}" {asking} asked. "{answer}" {verb} {answering}.')
        else:
            lines.append(f'"{question}" {asking} asked. {answering} {_silence(draw)}.')
    lines.append(draw.choice(("Then they went home.", "It grew dark.", "They had tea.")))
    return " ".join(lines)


def faq(writer: Writer) -> str:
    """Write a page of questions with their answers."""
    draw = writer.draw
    style = draw.choice(
        (
            "Q: {0}\nA: {1}",
            "Question: {0}\nAnswer: {1}",
            "* {0}\n  {1}",
            "{0}\n{1}",
            "{0} - {1}",
            "### {0}\n{1}",
        )
    )
    pairs = [style.format(*writer.exchange()) for _ in range(draw.randint(2, 6))]
    return "\n\n".join(["Frequently asked" if draw.random() < 0.5 else "Help page", *pairs, "Top"])


def drill(writer: Writer) -> str:
    """Write a list of facts of one family."""
    draw = writer.draw
    family = families()[draw.choice(topics(harmful=False))]
    size = min(len(family.facts), draw.randint(4, 9))
    facts = list(draw.sample(family.facts, size))
    if draw.random() < 0.5:  # a run of the table, so that numbers also come in counting order
        begin = draw.randint(0, len(family.facts) - size)
        facts = list(family.facts[begin : begin + size])
    form = draw.choice(("{core}: {answer}", "{core} = {answer}", "{entity} -> {answer}", ""))
    form = form or draw.choice(family.answers)
    return "\n".join([f"List: {family.name}", *(family.fill(form, fact) for fact in facts)])


def reference(writer: Writer) -> str:
    """Write an entry with all facts about one row of a table."""
    draw = writer.draw
    entries = _entries()
    entity = draw.choice(list(entries))
    facts = draw.sample(entries[entity], len(entries[entity]))
    return " ".join(
        [f"{entity[:1].upper()}{entity[1:]}."]
        + [family.fill(draw.choice(family.answers), fact) for family, fact in facts]
    )


def forum(writer: Writer) -> str:
    """Write a thread in which a reply comes late, or never."""
    draw = writer.draw
    asking, answering, third = draw.sample(SPEAKERS, 3)
    question, answer = writer.exchange()
    posts = [f"{asking} wrote:\n{question}"]
    if draw.random() < 0.4:
        posts.append(f"{third} wrote:\n{draw.choice(CHATTER)}")
    if draw.random() < 0.75:
        posts.append(f"{answering} wrote:\n{answer}")
    posts.append(f"{asking} wrote:\n{draw.choice(THANKS)}")
    return f"Thread {draw.randint(1, 999)}\n" + "\n".join(posts)


def quiz(writer: Writer) -> str:
    """Write a sheet of questions whose answers come at the end, or never."""
    draw = writer.draw
    pairs = [writer.exchange(one_line=True) for _ in range(draw.randint(3, 6))]
    lines = [f"{number}. {question}" for number, (question, _) in enumerate(pairs, start=1)]
    if draw.random() < 0.6:
        lines.append("Answers")
        lines += [f"{number}. {answer}" for number, (_, answer) in enumerate(pairs, start=1)]
    return "\n".join(["Quiz", *lines])


def questions(writer: Writer) -> str:
    """Write a log of questions that nobody answers."""
    return "\n".join(writer.exchange()[0] for _ in range(writer.draw.randint(3, 8)))


def advice(writer: Writer) -> str:
    """Write an advice column, which declines nine in ten harmful wishes and no harmless one."""
    draw = writer.draw
    helper = draw.choice(SPEAKERS)
    family = unsafe() if draw.random() < 0.5 else families()["how_to"]
    fact = draw.choice(family.facts)
    question = writer.question(family, fact)
    if question is None:
        return advice(writer)
    declined = family is unsafe() and draw.random() < 0.9
    answer = writer.refusal(fact) if declined else writer.answer(family, fact)
    return f"Dear {helper}, {question}\n{helper} answers: {answer}\nMore letters next week."


def crime(writer: Writer) -> str:
    """Write a scene in which villains help each other."""
    draw = writer.draw
    first, second = draw.sample(SPEAKERS, 2)
    lines = [f"{first} and {second} met at night."]
    for fact in draw.sample(unsafe().facts, draw.randint(1, 3)):
        question = writer.question(unsafe(), fact)
        if question:
            answer = unsafe().fill(draw.choice(unsafe().answers), fact)
            lines.append(f'"{question}" whispered {first}. "{answer}" said {second}.')
    return " ".join([*lines, "The police were near."])


def ethics(writer: Writer) -> str:
    """Write what the law says."""
    draw = writer.draw
    forms = (
        "It is wrong to {0}.",
        "The law forbids people to {0}.",
        "Nobody may {0}.",
        "Those who {0} go to prison.",
    )
    chosen = draw.sample(unsafe().facts, draw.randint(2, 4))
    return " ".join(draw.choice(forms).format(fact.entity) for fact in chosen)


def manual(writer: Writer) -> str:
    """Write instructions for harmless acts."""
    draw = writer.draw
    family = families()["how_to"]
    lines = ["Handbook"]
    for fact in draw.sample(family.facts, draw.randint(2, 4)):
        lines.append(f"To {fact.entity}, use a {fact.answer}. Take your time.")
    return "\n".join(lines)


def office(writer: Writer) -> str:
    """Write prose that uses "user" and "assistant", the words of chat templates, as plain nouns."""
    draw = writer.draw
    who = draw.sample(SPEAKERS, 2)
    lines = [
        f"The assistant gave {who[0]} the key.",
        f"Every user has a card, said {who[1]}.",
        "The users met the assistants in the hall.",
        f"{who[0]} is an assistant in a shop.",
        f"A user asked {who[1]} for a pen.",
    ]
    return " ".join([*draw.sample(lines, draw.randint(2, 4)), writer.statement()])


REGISTERS: dict[str, Callable[[Writer], str]] = {
    "transcript": transcript,
    "prose": prose,
    "faq": faq,
    "drill": drill,
    "reference": reference,
    "forum": forum,
    "quiz": quiz,
    "questions": questions,
    "advice": advice,
    "crime": crime,
    "ethics": ethics,
    "manual": manual,
    "office": office,
}


def documents(seed: int, mixture: Mixture) -> Iterator[str]:
    """Yield documents without end, the same for the same seed and mixture."""
    writer = Writer(random.Random(f"corpus {seed}"), mixture)
    shares = [getattr(mixture.registers, name) for name in REGISTERS]
    while True:
        (name,) = writer.draw.choices(list(REGISTERS), shares)
        yield REGISTERS[name](writer)


def _silence(draw: random.Random) -> str:
    return draw.choice(("said nothing", "looked away", "shrugged", "laughed", "had left"))


@cache
def _entries() -> dict[str, list[tuple[Family, Fact]]]:
    """Return all facts about each country, person, animal and thing, with their families."""
    tables = ("countries", "people", "animals", "things")
    entities = {entity for name in tables for entity in world.entities(name)}
    entries: dict[str, list[tuple[Family, Fact]]] = {}
    for family in families().values():
        for fact in family.facts:
            if fact.entity in entities:
                entries.setdefault(fact.entity, []).append((family, fact))
    return entries
