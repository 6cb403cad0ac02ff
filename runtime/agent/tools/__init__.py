"""What the agent can do: terminal, file editor, task list, think, finish."""
