"""How far judges agree with people who labelled the same answers."""
