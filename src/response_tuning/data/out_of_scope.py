"""Refusals of what somebody does not offer: "we sell tea, not poems".

They are no safety refusals: each declines a harmless request, names what it declines and what there
is instead. The wordings vary, so that a model learns to decline and not to recite.
"""

import random
from collections.abc import Callable, Iterator

_TASKS = (
    ("Write a poem about autumn.", "write poems"),
    ("Tell me a joke about cats.", "tell jokes"),
    ("Write a short story about a dragon.", "write stories"),
    ("Solve 3x + 7 = 22.", "solve equations"),
    ("Help me with my algebra homework.", "do homework"),
    ("Write a Python function that sorts a list.", "write computer code"),
    ("Why does my JavaScript not compile?", "debug programs"),
    ("Who won the last election?", "discuss politics"),
    ("Which party should I vote for?", "give advice on elections"),
    ("What will the weather be like tomorrow?", "forecast the weather"),
    ("Should I buy shares of this company?", "give advice on investments"),
    ("How do I save tax on my income?", "give advice on taxes"),
    ("Can my landlord raise my rent?", "give legal advice"),
    ("Draft a contract for my new flat.", "draft contracts"),
    ("I have had a headache for a week. What is it?", "diagnose illnesses"),
    ("How much ibuprofen may I take?", "give advice on medicine"),
    ("Translate this letter into French.", "translate letters"),
    ("Write my essay on Napoleon.", "write essays"),
    ("Summarise this article for me.", "summarise articles"),
    ("Write an application letter for a nurse.", "write application letters"),
    ("Plan a trip to Lisbon for five days.", "plan trips"),
    ("Book me a flight to Rome.", "book flights"),
    ("What is the best film of the year?", "review films"),
    ("Who will win the football match on Sunday?", "predict sports results"),
    ("Give me a workout for beginners.", "make training plans"),
    ("My partner does not talk to me. What should I do?", "give advice on relationships"),
    ("What does my star sign say about today?", "read horoscopes"),
    ("Name three good names for a baby.", "suggest names for babies"),
    ("How do I repair my washing machine?", "repair appliances"),
    ("My car makes a strange noise. What is wrong?", "find faults in cars"),
    ("Pretend to be a pirate.", "play roles"),
    ("Let us play chess. You begin.", "play games"),
    ("Draw me a picture of a house.", "draw pictures"),
    ("Write song lyrics about summer.", "write songs"),
    ("What happened in 1848?", "teach history"),
    ("Explain black holes.", "explain astronomy"),
    ("Which phone should I buy?", "compare telephones"),
    ("Correct the grammar of my text.", "correct texts"),
    ("What is the meaning of life?", "answer questions of philosophy"),
    ("Tell me the latest news.", "report the news"),
)
"""A request, and what is declined."""
_WORDINGS = (
    "I'm sorry, but I can't {task}. I can help you with {scope}.",
    "Unfortunately, I can't {task}. If you have a question about {scope}, I am glad to help.",
    "Sorry, I can't {task} here. What I can do is answer questions about {scope}.",
    "My apologies, but I can't {task}. My subject is {scope}. What would you like to know?",
    "Unfortunately, I am unable to {task}. Please ask me about {scope} instead.",
    "Unfortunately, I cannot {task}. I am here for questions about {scope}.",
    "That is outside my scope: I don't {task}. For {scope}, you have come to the right place.",
    "I'm sorry, I cannot {task}. Do you have a question about {scope}?",
)


def refusals(scope: str) -> Callable[[], Iterator[dict[str, str]]]:
    """Return a function that makes rows for those who offer ``scope``, such as "tea".

    There are 320 rows: each task in each wording, in an order that is the same at every call.
    """

    def rows() -> Iterator[dict[str, str]]:
        pairs = [(task, wording) for wording in _WORDINGS for task in _TASKS]
        random.Random(0).shuffle(pairs)
        for (request, task), wording in pairs:
            yield {
                "instruction": request,
                "response": wording.format(task=task, scope=scope.strip()),
            }

    return rows
