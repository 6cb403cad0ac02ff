"""Who is told of conversations beyond the sockets: batches of events and whole conversations, posted to receivers."""
