"""One persistent shell on a real terminal for a conversation: its processes, its screen, its life."""
