-- include: lease.lua
-- include: journal.lua
-- include: operation.lua
-- End an operation; the first end counts.
-- KEYS: operation, running operations of the conversation, journal
-- ARGV: id, state, ms for which it is kept, failure or ''
-- Answers 1, or 0 when there is no such operation.
return end_operation(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
