-- include: admission.lua
-- How a conversation stands with its tenant's slots.
-- KEYS: conversation, slots, queue
-- ARGV: id
-- Answers {'held'}, {'queued', place, until ms, ms left} or {'none'}.
return standing({slots = KEYS[2], queue = KEYS[3]}, KEYS[1], ARGV[1], now_ms())
