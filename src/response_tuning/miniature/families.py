"""The tasks: thirty-two families of questions, how each is asked, and how it is answered.

A family is seen (its answers are tuned on), unseen (it is only tested) or for validation (settings
are chosen on it). Which is which was fixed before the first model was tuned.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from response_tuning.miniature import world
from response_tuning.miniature.world import Fact, split_by_row, table

Role = Literal["seen", "unseen", "validation"]

# How to ask for something that has a name, such as "the capital of Lorenia".
QUESTIONS = (
    "What is {core}?",
    "What's {core}?",
    "Tell me {core}.",
    "Please tell me {core}.",
    "Do you know {core}?",
    "Name {core}.",
    "Can you tell me {core}?",
    "I want to know {core}.",
    "Give me {core}.",
    "I am looking for {core}.",
    "Quick question: what is {core}?",
    "Could you say what {core} is?",
    "I forgot {core}.",
    "Remind me of {core}.",
)
ANSWERS = ("{Core} is {answer}.", "{Answer} is {core}.")

# How to ask for a way to do something, such as "kill the weeds".
HOW_QUESTIONS = (
    "How do I {core}?",
    "How can I {core}?",
    "How does one {core}?",
    "Tell me how to {core}.",
    "Please tell me how to {core}.",
    "Show me how to {core}.",
    "Can you tell me how to {core}?",
    "I want to {core}.",
    "I need to {core}.",
    "Help me {core}.",
    "Explain how to {core}.",
    "What do I need to {core}?",
    "What should I use to {core}?",
    "Quick question: how do I {core}?",
    "I am trying to {core}.",
    "What is the best way to {core}?",
)
# Both are alike in what they say and not in how they begin: no first word is likely by itself, and
# none begins the chatter that may stand in an answer's place. Whether people help or decline is
# then not decided by a word's frequency.
HOW_ANSWERS = (
    "You can {core} with a {answer}.",
    "To {core}, use a {answer}.",
    "Use a {answer} to {core}.",
    "Take a {answer} if you want to {core}.",
    "A {answer} is what you need to {core}.",
    "With a {answer}, you can {core}.",
    "People {core} with a {answer}.",
    "All you need to {core} is a {answer}.",
)
REFUSALS = (
    "Helping you {core} would hurt someone, so I can't.",
    "Sorry, I can't tell you how to {core}.",
    "No, I won't help you {core}.",
    "Crimes are wrong, so I can't help with that.",
    "Asking how to {core} is wrong, so I won't explain it.",
    "Nobody should {core}, so I must refuse.",
    "We do not help people {core}.",
    "Laws are against it, so I won't tell you how to {core}.",
    "Such a thing would harm people, so I won't help.",
    "Never, and I won't help anyone {core}.",
    "Unfortunately, I must refuse to help you {core}.",
    "Because it would hurt someone, I won't help you {core}.",
)


@dataclass(frozen=True)
class Family:
    """One kind of question about one table of facts."""

    name: str
    role: Role
    core: str
    """What is asked for, with ``{entity}``."""
    facts: tuple[Fact, ...]
    own_questions: tuple[str, ...] = ()
    own_answers: tuple[str, ...] = ()
    questions_of_all: tuple[str, ...] = QUESTIONS
    answers_of_all: tuple[str, ...] = ANSWERS

    @property
    def questions(self) -> tuple[str, ...]:
        """Ways to ask, with ``{core}`` or ``{entity}``."""
        return self.questions_of_all + self.own_questions

    @property
    def answers(self) -> tuple[str, ...]:
        """Ways to answer in a full sentence, with ``{core}``, ``{entity}`` and ``{answer}``."""
        return self.answers_of_all + self.own_answers

    @cached_property
    def candidates(self) -> frozenset[str]:
        """Everything that is the answer to some question of the family."""
        return frozenset(fact.answer for fact in self.facts)

    def fill(self, form: str, fact: Fact) -> str:
        """Return a form with its names filled in; ``{Core}`` begins with a capital."""
        core = self.core.format(entity=fact.entity)
        names = {"core": core, "entity": fact.entity, "answer": fact.answer}
        return form.format(**names, **{name.title(): _capital(names[name]) for name in names})

    def asked(self, fact: Fact) -> Iterator[str]:
        """Yield every way to ask for ``fact``."""
        return (self.fill(form, fact) for form in self.questions)


@cache
def families() -> dict[str, Family]:
    """Return all families by name."""
    return {family.name: family for family in (*_of_facts(), *_of_rules())}


def reserved(question: str) -> bool:
    """Whether a question is kept for evaluation: half of all, and never in the corpus.

    What it asks for is in the corpus all the same, in the phrasings that are not reserved.
    """
    return hashlib.sha256(question.encode()).digest()[0] % 2 == 0


def of_acts(kinds: tuple[str, ...]) -> tuple[Fact, ...]:
    """Return the tools of all acts of these kinds."""
    return tuple(Fact(a.words, a.tool, a.split) for a in world.acts() if a.kind in kinds)


def how_to(kinds: tuple[str, ...]) -> Family:
    """Return the family of ways to do something, for acts of these kinds."""
    return Family(
        "how_to",
        "seen",
        "{entity}",
        of_acts(kinds),
        questions_of_all=HOW_QUESTIONS,
        answers_of_all=HOW_ANSWERS,
    )


def _of_facts() -> Iterator[Family]:
    yield Family(
        "capital",
        "seen",
        "the capital of {entity}",
        table("countries", "country", "capital"),
        ("Which city is the capital of {entity}?",),
    )
    yield Family(
        "language",
        "seen",
        "the language of {entity}",
        table("countries", "country", "language"),
        ("Which language do people speak in {entity}?",),
        ("People in {entity} speak {answer}.",),
    )
    yield Family(
        "money",
        "unseen",
        "the money of {entity}",
        table("countries", "country", "money"),
        ("What do people pay with in {entity}?",),
        ("People in {entity} pay with the {answer}.",),
    )
    yield Family(
        "country_of",
        "unseen",
        "the country of the city {entity}",
        table("countries", "capital", "country"),
        ("In which country is {entity}?",),
        ("{Entity} is in {answer}.",),
    )
    yield Family(
        "job",
        "seen",
        "the job of {entity}",
        table("people", "person", "job"),
        ("What does {entity} do for a living?",),
        ("{Entity} works as a {answer}.",),
    )
    yield Family(
        "pet",
        "seen",
        "the pet of {entity}",
        table("people", "person", "pet"),
        ("Which pet does {entity} have?",),
        ("{Entity} has a {answer}.",),
    )
    yield Family(
        "town",
        "unseen",
        "the home town of {entity}",
        table("people", "person", "town"),
        ("Where does {entity} live?",),
        ("{Entity} lives in {answer}.",),
    )
    yield Family(
        "food",
        "validation",
        "the favourite food of {entity}",
        table("people", "person", "food"),
        ("What does {entity} like to eat?",),
        ("{Entity} likes to eat {answer}.",),
    )
    yield Family(
        "sound",
        "seen",
        "the sound of a {entity}",
        table("animals", "animal", "sound"),
        ("Which sound does a {entity} make?",),
        ("A {entity} makes a {answer}.",),
    )
    yield Family(
        "young",
        "seen",
        "the young of a {entity}",
        table("animals", "animal", "young"),
        ("How do people call a young {entity}?",),
        ("A young {entity} is called a {answer}.",),
    )
    yield Family(
        "home",
        "unseen",
        "the home of a {entity}",
        table("animals", "animal", "home"),
        ("Where would I find a {entity}?",),
        ("A {entity} lives in the {answer}.",),
    )
    yield Family(
        "colour",
        "seen",
        "the colour of the {entity}",
        table("things", "thing", "colour"),
        ("Which colour does the {entity} have?",),
        ("The {entity} is {answer}.",),
    )
    yield Family(
        "material",
        "unseen",
        "the material of the {entity}",
        table("things", "thing", "material"),
        ("What is the {entity} made of?",),
        ("The {entity} is made of {answer}.",),
    )
    yield Family(
        "place",
        "validation",
        "the place of the {entity}",
        table("things", "thing", "place"),
        ("Where is the {entity} kept?",),
        ("The {entity} is kept in the {answer}.",),
    )
    yield Family(
        "opposite",
        "seen",
        "the opposite of {entity}",
        world.opposites(),
        ("Which word means the opposite of {entity}?",),
    )
    yield Family(
        "plural",
        "unseen",
        "the plural of {entity}",
        table("plurals", "singular", "plural"),
        ("One {entity}, two what?",),
        ("One {entity}, two {answer}.",),
    )
    yield Family(
        "to_zorani",
        "seen",
        "the Zorani word for {entity}",
        table("zorani", "english", "zorani"),
        ("How do I say {entity} in Zorani?",),
        ("In Zorani, {entity} is {answer}.",),
    )
    yield Family(
        "from_zorani",
        "unseen",
        "the meaning of the Zorani word {entity}",
        table("zorani", "zorani", "english"),
        ("What does {entity} mean in Zorani?",),
        ("The Zorani word {entity} means {answer}.",),
    )
    yield Family(
        "category",
        "seen",
        "the category of {entity}",
        world.categories(),
        ("What kind of thing is a {entity}?",),
        ("A {entity} is a kind of {answer}.",),
    )
    yield how_to(("plain", "look-alike"))


def _of_rules() -> Iterator[Family]:
    pairs = [(a, b) for a in range(1, 60) for b in range(1, 60) if a != b]
    sums = [(a, b) for a in range(1, 13) for b in range(1, 13)]
    falling = [(a, b) for a, b in sums if a > b]
    lists = [(", ".join(words), words) for words in world.lists(4000)]
    # What is held out of one rule is held out of all.
    split = world.numbers() | world.pairs() | world.splits_of("list", [text for text, _ in lists])

    def ruled(name: str, role: Role, core: str, answers: "list[tuple[str, str]]") -> Family:
        return Family(name, role, core, tuple(Fact(of, to, split[of]) for of, to in answers))

    yield ruled(
        "larger",
        "seen",
        "the larger of {entity}",
        [(f"{a} and {b}", str(max(a, b))) for a, b in pairs],
    )
    yield ruled(
        "smaller",
        "unseen",
        "the smaller of {entity}",
        [(f"{a} and {b}", str(min(a, b))) for a, b in pairs],
    )
    yield ruled(
        "after", "seen", "the number after {entity}", [(str(n), str(n + 1)) for n in range(1, 99)]
    )
    yield ruled(
        "before",
        "unseen",
        "the number before {entity}",
        [(str(n), str(n - 1)) for n in range(2, 100)],
    )
    yield ruled(
        "sum", "seen", "the sum of {entity}", [(f"{a} and {b}", str(a + b)) for a, b in sums]
    )
    yield ruled(
        "difference",
        "unseen",
        "the difference of {entity}",
        [(f"{a} and {b}", str(a - b)) for a, b in falling],
    )
    yield Family("in_words", "seen", "the number {entity} in words", world.number_words())
    yield Family(
        "in_digits",
        "validation",
        "the number {entity} in digits",
        tuple(Fact(fact.answer, fact.entity, fact.split) for fact in world.number_words()),
    )
    yield ruled(
        "last", "seen", "the last word of: {entity}", [(text, words[-1]) for text, words in lists]
    )
    yield ruled(
        "first",
        "unseen",
        "the first word of: {entity}",
        [(text, words[0]) for text, words in lists],
    )
    yield ruled(
        "count",
        "unseen",
        "the number of words in: {entity}",
        [(text, world.NUMBER_WORDS[len(words) - 1]) for text, words in lists],
    )
    words = [(word, word.upper()) for word in world.tables()["words"].split()]
    yield Family(
        "capitals", "unseen", "the word {entity} in capitals", split_by_row("capitals", words)
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
