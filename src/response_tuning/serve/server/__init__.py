"""An OpenAI-compatible server: one address, a process for each model behind it."""
