"""Judges: their prompts, how their replies are read, and the rules that need no model."""
