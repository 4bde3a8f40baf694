"""What each command does, stage by stage: the one place where stages meet."""
