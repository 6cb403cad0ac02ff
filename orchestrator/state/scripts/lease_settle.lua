-- include: lease.lua
-- Give a lease back and say when the conversation is due next.
-- KEYS: conversation, due
-- ARGV: id, owner, fence, due in ms ('' : not until asked)
-- Answers 1 when it is due now because somebody asked meanwhile, else 0.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return 0
end
local poked = redis.call('HGET', KEYS[1], 'poked')
redis.call('HDEL', KEYS[1], 'lease_owner', 'lease_until_ms', 'poked')
if poked then
  redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
  return 1
end
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], now_ms() + tonumber(ARGV[4]), ARGV[1])
end
return 0
