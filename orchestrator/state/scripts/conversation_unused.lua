-- include: lease.lua
-- How long nobody has used a conversation.
-- KEYS: conversation
-- Answers milliseconds; -1 when it was never used, or does not exist.
local used = redis.call('HGET', KEYS[1], 'used_ms')
if not used then
  return -1
end
return math.max(0, now_ms() - used)
