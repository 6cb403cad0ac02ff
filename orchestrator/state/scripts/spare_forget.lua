-- A spare is gone, with whatever it was.
-- KEYS: spare, unbound, leaving, bound, kinds, beginning of making, beginning of ready
-- ARGV: name
-- Answers 1, or 0 when it was not known.
local known = redis.call('HMGET', KEYS[1], 'kind', 'tenant', 'conversation')
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
if known[2] then
  local member = known[2] .. '/' .. known[3]
  if redis.call('HGET', KEYS[4], member) == ARGV[1] then
    redis.call('HDEL', KEYS[4], member)
  end
end
if known[1] then
  local making, ready = KEYS[6] .. known[1], KEYS[7] .. known[1]
  redis.call('ZREM', making, ARGV[1])
  redis.call('ZREM', ready, ARGV[1])
  if redis.call('ZCARD', making) + redis.call('ZCARD', ready) == 0 then
    redis.call('SREM', KEYS[5], known[1])
  end
end
return redis.call('DEL', KEYS[1])
