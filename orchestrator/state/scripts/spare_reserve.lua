-- include: lease.lua
-- Ask whether one more spare of a kind may be made; if so it is counted from now on, so that several who ask at once
-- never make too many.
-- KEYS: making, ready (of this kind), unbound, kinds, counts, spare, leaving, beginning of the keys of spares
-- ARGV: name, kind, how many of this kind, how many with those of it that leave, how many of this kind at once, ms until
--       it must be ready, ms between two
-- Answers 'made', 'full', or 'later'.
local now = now_ms()
local there = redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2])
if there >= tonumber(ARGV[3]) then
  return 'full'
end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[7])) do
  if redis.call('HGET', KEYS[8] .. name, 'kind') == ARGV[2] then
    there = there + 1
  end
end
if there >= tonumber(ARGV[4]) then
  return 'full'
end
local last = tonumber(redis.call('HGET', KEYS[5], 'reserved:' .. ARGV[2]) or '0')
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) or now < last + tonumber(ARGV[7]) then
  return 'later'
end
redis.call('HSET', KEYS[5], 'reserved:' .. ARGV[2], string.format('%.0f', now))
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[6]), ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('SADD', KEYS[4], ARGV[2])
redis.call('HSET', KEYS[6], 'kind', ARGV[2], 'state', 'making')
return 'made'
