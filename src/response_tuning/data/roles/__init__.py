"""Roles and rules for instructions that have a plain response."""
