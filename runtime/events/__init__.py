"""Events of a conversation: their closed records, the log that keeps them, the feed that sends them."""
