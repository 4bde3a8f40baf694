"""What users write in their next turn as a label of the answer before it (WildFeedback)."""
