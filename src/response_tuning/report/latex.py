"""Text that LaTeX prints as it stands."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "\u2212": "$-$",
    "\u221e": r"$\infty$",
}


def tex(text: object) -> str:
    """Return text on one line, with every character that LaTeX reads as a command escaped."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(str(text).split()))
