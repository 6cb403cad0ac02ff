"""The V0 API: conversations with settings, git providers and secrets, as the scripts of that generation know it."""
