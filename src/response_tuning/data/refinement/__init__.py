"""Responses rewritten by a model (paper, section 5.1), and the report on what changed."""
