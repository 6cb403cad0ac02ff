-- include: journal.lua
-- Remove an operation that came to nothing.
-- KEYS: operation, running operations of the conversation, journal
-- ARGV: id
-- Answers 1, or 0 when there was none.
redis.call('SREM', KEYS[2], ARGV[1])
if redis.call('DEL', KEYS[1]) == 0 then
  return 0
end
unjournal('operation', ARGV[1])
return 1
