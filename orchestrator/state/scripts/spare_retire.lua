-- include: lease.lua
-- Have spares of a kind removed: those that were not ready in time, and of the ready ones all beyond a number, the
-- oldest first; or one by its name.
-- KEYS: making, ready (of this kind), leaving, beginning of the keys of spares
-- ARGV: how many ready ones may stay, or 'all' also of those that are made; name or ''
-- Answers how many.
local going = {}
if ARGV[2] ~= '' then
  if redis.call('ZSCORE', KEYS[1], ARGV[2]) or redis.call('ZSCORE', KEYS[2], ARGV[2]) then
    going = {ARGV[2]}
  end
else
  local limit = ARGV[1] == 'all' and '+inf' or string.format('%.0f', now_ms())
  going = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', limit)
  local beyond = redis.call('ZCARD', KEYS[2]) - (tonumber(ARGV[1]) or 0)
  if beyond > 0 then
    for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, beyond - 1)) do
      table.insert(going, name)
    end
  end
end
for _, name in ipairs(going) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('SADD', KEYS[3], name)
  redis.call('HSET', KEYS[4] .. name, 'state', 'leaving')
  redis.call('HDEL', KEYS[4] .. name, 'key')
end
return #going
