-- include: lease.lua
-- Make a conversation due now, or at the end of the lease that somebody holds.
-- KEYS: conversation, due
-- ARGV: id
-- Answers 1, or 0 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
poke(KEYS[1], KEYS[2], ARGV[1], now_ms())
return 1
