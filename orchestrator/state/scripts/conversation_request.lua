-- include: lease.lua
-- Store a caller's change if nobody changed the record since, and make it due now. Phase and runtime are not written.
-- KEYS: conversation, due
-- ARGV: id, expected version, intent, record
-- Answers 1, or 0 when the version differs or there is no such conversation.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'intent', ARGV[3], 'record', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'version', 1)
poke(KEYS[1], KEYS[2], ARGV[1], now_ms())
return 1
