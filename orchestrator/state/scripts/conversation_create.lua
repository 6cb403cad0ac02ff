-- include: lease.lua
-- Write a conversation unless its id is taken, if the tenant has room for one more.
-- KEYS: conversation, due, live, conversations [, the user's conversations]
-- ARGV: id, limit of live ones (-1: none), 1 if it counts as live, index member, user or '',
--       intent, phase, runtime, record, version, fence
-- Answers {'created'}, {'exists', parts...} or {'limit', number of live ones}.
if redis.call('EXISTS', KEYS[1]) == 1 then
  local stored = parts(KEYS[1])
  table.insert(stored, 1, 'exists')
  return stored
end
local limit = tonumber(ARGV[2])
if ARGV[3] == '1' then
  local count = redis.call('SCARD', KEYS[3])
  if limit >= 0 and count >= limit then
    return {'limit', count}
  end
  redis.call('SADD', KEYS[3], ARGV[1])
end
redis.call('HSET', KEYS[1], 'member', ARGV[4], 'user', ARGV[5], 'intent', ARGV[6], 'phase', ARGV[7], 'runtime', ARGV[8],
  'record', ARGV[9], 'version', ARGV[10], 'fence', ARGV[11])
redis.call('ZADD', KEYS[4], 0, ARGV[4])
if KEYS[5] then
  redis.call('ZADD', KEYS[5], 0, ARGV[4])
end
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
return {'created'}
