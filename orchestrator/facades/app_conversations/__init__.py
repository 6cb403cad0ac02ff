"""The V1 API of app-conversations: start tasks, records, messages and events."""
