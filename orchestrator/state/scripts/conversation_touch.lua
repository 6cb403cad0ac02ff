-- include: lease.lua
-- Note that a conversation is in use now, if it exists.
-- KEYS: conversation
-- Answers 1, or 0 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'used_ms', now_ms())
return 1
