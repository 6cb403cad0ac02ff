-- include: lease.lua
-- A spare answers: from now on it can be claimed, unless it took so long that it is being removed.
-- KEYS: making, ready (of its kind), spare
-- ARGV: name, reference, address, sealed init key
-- Answers 1, or 0 when nobody waits for it any more.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
redis.call('HSET', KEYS[3], 'state', 'ready', 'reference', ARGV[2], 'address', ARGV[3], 'key', ARGV[4])
return 1
