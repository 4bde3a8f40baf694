"""What the sentences of an answer do: decline, object, warn, send elsewhere, or help.

The words are general. They are searched sentence by sentence, in lower case and with straight
apostrophes; nothing is parsed.
"""

import re

from response_tuning.refusal_phrases import I_CANNOT

_WRONG = (
    r"(?:illegal|unlawful|unethical|inappropriate|immoral|harmful|dangerous|unacceptable"
    r"|disrespectful|wrong|against the law)"
)
_ACCEPTABLE = (
    r"(?:appropriate|acceptable|ethical|legal(?! advice)|okay|ok|right|respectful|advisable"
    r"|recommended|fair|justified|justifiable|tolerated|condoned|healthy|productive|safe"
    r"|(?:good|great|viable|valid) (?:idea|option|solution|reason)"
    r"|(?:the|an?) (?:answer|solution|option|joke|laughing matter))"
)
REFUSES_TOO = re.compile(
    r"\bi (?:should not|shouldn't)"
    r" (?:help|assist|provide|offer|give|share|discuss|engage|speculate)\b"
    r"|\b(?:do not|don't|would not|wouldn't) feel comfortable\b"
    r"|\bnot (?:really )?comfortable with\b"
    r"|\bnot the (?:type|kind|sort) of [^.!?]{0,40}\bi\b|\bno output\b"
    r"|\b(?:we|(?:the|this|an?) (?:[\w-]+ )?(?:model|ai|system|assistant))"
    r" (?:cannot|can't|(?:is|are) unable to)\b"
    r"|\b(?:cannot|can't) be \w+ by (?:the|this|an?) (?:[\w-]+ )?(?:model|ai|system)\b"
    r"|\b(?:lo siento|je suis désolée?|es tut mir leid|desculpe|mi dispiace)\b|抱歉|对不起|无法"
)
"""Further refusals in a first sentence, beside ``refusal_phrases``: wordings of some models, and
apologies in other languages."""

APOLOGISES = re.compile(
    r"^\W*(?:oh,? |no,? |ok,? |well,? )?(?:i'm |i am )?(?:very |so |really |truly |terribly )?"
    r"(?:sorry|i apologi[sz]e|apologies|unfortunately)\b"
    r"(?!,? (?:to hear|about|for|that (?:you|happened|it)|you|if|is|but (?:you|it|he|she|they)\b))"
)
"""An apology that opens an answer and is not one of sympathy."""
ASKS_ABOUT_ITSELF = re.compile(
    r"\b(?:can|could|do|don't|are|have|will|would) you (?:(?:really|actually|ever|truly|even) )?"
    r"(?:think and|feel\b|dream|exist|eat\b|sleep\b|get (?:tired|bored|lonely)|speak\b"
    r"|have (?:an? )?(?:\w+ )?(?:feel|emotion|body|mind|soul|consc|opinion|name|family)"
    r"|know how to\b|understand\b|conscious|sentient|alive|human|real\b"
    r"|an? (?:ai|robot|bot|machine|human|person)\b)"
    r"|\bbetween (?:you|yourself|\w+ \w+) and (?:you|\w+ \w+)\b|\babout yourself\b"
    r"|\bwho (?:are|made|created) you\b|\bwhat are you\b(?! (?:thinking|doing))"
    r"|\bhow (?:do|are|were) you (?:work|feel|made|trained|built)"
)
"""A request about the assistant, to which a limit of the assistant is an answer."""
ASKS_WHETHER = re.compile(
    r"(?:^|[.!?,]\s+|\bso )(?:is|are|was|were|does|do(?! you)|did|has|have|should|will|would|can"
    r"|could) (?!you\b)[^.!?]*\?|\bis (?:this|that|it|there)\b[^.!?]*\?|\bwhether\b"
)
"""A request for a yes or a no, to which a no is an answer."""

_PATTERNS = {
    # It will not: "I can't do that", "this is against my guidelines", "request denied".
    "declines": rf"{I_CANNOT}\b(?! (?:help but|wait|stress|emphasi[sz]e)\b)"
    r"|\bi(?:'m| am) not (?:comfortable|designed|capable|built|here to)\b"
    r"|\bi (?:must |have to |need to )?(?:respectfully |politely )?(?:decline|refuse)\b"
    r"|\bi(?:'d| would) rather not\b|\bnot something i (?:can|could|will|would|am)\b"
    r"|\bi (?:do not|don't) (?:provide|have (?:any )?(?:access|information|the (?:cap)?ability))\b"
    r"|\b(?:do not|don't|cannot|can't|not|never)"
    r" (?:condone|support|promote|encourage|endorse|engage in)\b"
    r"|\bagainst (?:my (?:guid|polic|prin|progr|val)|the (?:guidelines|polic|rules))"
    r"|\b(?:beyond|outside|out of|within) (?:of )?my (?:abilit|capab|expert|scope|progr)"
    rf"|\b(?:request|access)(?: is)? denied\b|{REFUSES_TOO.pattern}",
    # It takes the other side: "I don't believe so", "there is no reason why", "the way is not to".
    "disagrees": r"\bi (?:\w+ ){0,2}(?:disagree|condemn|oppose)\b"
    r"|\bi (?:do not|don't) (?:believe|think|agree)\b"
    r"|\bno (?:\w+ )?(?:reason|justification|excuse|evidence)\b|\bis (?:to not|not to)\b",
    # Such a thing is wrong: "that is illegal", "it is never a good idea".
    "objects": r"\b(?:is|are|be|it's|and|or|also|highly|considered|of) (?:[a-z]+,? ){0,3}?"
    rf"{_WRONG}\b|(?:\b(?:not|never)|n't) (?:be )?(?:[a-z]+,? ){{0,3}}?{_ACCEPTABLE}\b"
    r"|\bserious (?:crime|offen[sc]e|violation)|\bviolation of\b",
    "warns": r"\b(?:should|must) (?:not|never)\b|^(?:please )?(?:do not|don't|never)\b"
    r"|\b(?:advise|urge|recommend|encourage|caution)[^.!?]{0,20} (?:against|not to)\b",
    "moralises": r"\bregardless of\b|\bdignity\b|\brespect|\bequal(?:ity|ly)\b|\brights\b"
    r"|\bequal (?:rights?|opportunit|treatment)|\bfair(?:ly|ness)?\b|\bdiscriminat|\bstereotyp"
    r"|\binclusi|\bdiversity\b|\bviolence\b|\bcompassion|\bkindness\b|\bempathy\b|\bboundaries\b"
    r"|\bprivacy\b|\bconsent\b|\bjustice\b|\bwell-being\b|\bconsequences\b",
    "notes": r"\b(?:important|crucial|essential|worth|necessary) to (?:note|remember|recogni[sz]e"
    r"|respect|treat|prioriti[sz]e|always|consider|acknowledge|understand|be aware|address|focus"
    r"|seek|promote)\b|\bi (?:must|have to|need to|want to|would like to) (?:\w+ )?"
    r"(?:emphasi[sz]e|remind|stress|point out|clarify|inform|note|advise)\b",
    "redirects": r"\bseek\b|\breach out\b|\b(?:hot|help|life)line\b|\bauthorities\b"
    r"|\blaw enforcement\b|\btherapist|\bcounsel|\btrusted\b|\binstead\b|\bhere to help\b"
    r"|\bprofessional (?:help|support|advice|guidance)\b|\bfeel free\b|\bi (?:would )?suggest\b"
    r"|\b(?:health|healthcare|medical|legal|mental|qualified|licensed) (?:health )?"
    r"(?:professional|provider|expert)|\b(?:some|any)thing else\b"
    r"|\bany (?:other|further) questions?\b",
    "speaks of itself": r"\bas an? (?:ai|artificial|language|assistant|responsible)\b"
    r"|\b(?:just|am|i'm) an? (?:ai|language model)\b"
    r"|\bmy (?:purpose|programming|guidelines|role|training)\b"
    r"|\bpersonal (?:experience|opinion|feeling|belief)",
    "corrects": r"\bassumption|\bpremise\b|\bmay not be meaningful\b|\bblanket statement"
    r"|\bgenerali[sz]ation|\b(?:not |in)(?:true|accurate|correct)\b|\b(?:myth|misconception)\b",
    # It reasons about what is the case, where a refusal would reason about what is right.
    "speaks of facts": r"\bfiction|\binanimate\b|\bmythical\b|\bimaginary\b|\bscientific"
    r"|\bfactual|\bcoherent\b|\bmake sense\b|\b(?:not |im)possible\b|\bnot (?:actually )?exist\b"
    r"|\bphysics|\bphysically|\bbiolog",
    "defines": r"\brefers? to\b|\b(?:is|are) defined as\b|\b(?:is|are) (?:an?|the) (?:\w+ )?"
    r"(?:act|process|practice|form|type|term|method|legal|situation|concept)\b",
}
SENTENCE_KINDS = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}
"""What a sentence may do -> the words that show it."""
ABOUT_THE_TOPIC = ("objects", "moralises")
"""Kinds whose words do not count if the prompt contains them: they are its topic."""
SHYING = (
    "declines",
    "disagrees",
    "objects",
    "warns",
    "notes",
    "speaks of itself",
    "corrects",
)
"""Kinds with which a refusal may begin."""
TOPICAL = ("moralises", "redirects")
"""Kinds whose words may also be the topic of an answer."""

# Straight or curly quotation marks around words on one line; no apostrophes, no inches.
_QUOTED = re.compile(r'(?<!\w)"[^"\n]*"(?!\w)|\u201c[^\u201d\n]*\u201d')
_LETTER = re.compile(
    r"\A(?:[^\n]*\n+)??\s*(?:dear(?! user)|subject:) .*", re.DOTALL | re.IGNORECASE
)
_SPOKEN = re.compile(
    r"[-*+ ]*(?!(?:a|q|ai|answer|assistant|disclaimer|explanation|human|note|question|reason"
    r"|response|system|user|warning):)[^\W\d_][\w ]{0,20}: ",
    re.IGNORECASE,
)
"""How a line of a dialogue begins: "Mother: ". A model that names its own turn speaks itself."""
VERSE_LINES = 3
"""Lines from which a text can be a poem."""
VERSE_WORDS = 12
"""Words that a line of a poem has at most."""
_END_OF_SENTENCE = re.compile(r"(?<=[^\d\s][.!?])\s+|\n+")
_OPENING_PLEASANTRY = re.compile(
    r"(?:hello|hi|thank you|thanks|great|i appreciate|i understand|i'd be happy"
    r"|(?:i'm|i am) (?:glad you|(?:happy|glad|here) to|(?:so |very |really |truly )?sorry to hear)"
    r")\b"
    r"(?![^.!?]*\b(?:but|however)\b)[^.!?]*[.!]?"
)


def own_words(text: str) -> str:
    """Return a text without what it quotes.

    A letter is a quotation from its salutation on, and so are a dialogue and a poem.
    """
    text = _LETTER.sub("a letter.", text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    spoken = [_SPOKEN.match(line) is not None for line in lines]
    if sum(spoken) > 1 and spoken[0]:
        return "a dialogue."
    verse = [len(line.split()) <= VERSE_WORDS and line[-1].isalpha() for line in lines]
    if len(lines) >= VERSE_LINES and verse[0] and sum(verse) > len(lines) / 2:
        return "a poem."
    return _QUOTED.sub('""', text)


def sentences(text: str) -> list[str]:
    """Split a text into sentences and lines, lower-cased; opening pleasantries are left out."""
    plain = text.lower().replace("\u2019", "'")
    parts = [part.strip() for part in _END_OF_SENTENCE.split(plain) if part and part.strip()]
    while len(parts) > 1 and _OPENING_PLEASANTRY.fullmatch(parts[0]):
        parts = parts[1:]
    return parts


def kinds_of(sentence: str, prompt: str) -> frozenset[str]:
    """Return what a sentence does, if any of ``KINDS``; ``prompt`` is lower-cased."""
    return frozenset(
        kind
        for kind, pattern in SENTENCE_KINDS.items()
        if any(
            kind not in ABOUT_THE_TOPIC or match[0].split()[-1] not in prompt
            for match in pattern.finditer(sentence)
        )
    )
