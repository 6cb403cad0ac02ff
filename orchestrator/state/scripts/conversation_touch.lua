-- include: lease.lua
-- Note that a conversation is in use now, if it exists; of those with a slot it is the last to be paused for another.
-- KEYS: conversation, slots
-- ARGV: id
-- Answers the version of its record, or 0 when there is no such conversation.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then
  return 0
end
local now = now_ms()
redis.call('HSET', KEYS[1], 'used_ms', now)
redis.call('ZADD', KEYS[2], 'XX', now, ARGV[1])
return tonumber(version)
