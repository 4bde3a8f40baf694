"""A tuned model in people's hands: chat in the terminal."""
