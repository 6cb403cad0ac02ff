-- Remove a named value.
-- KEYS: the hash of the layer
-- ARGV: name
-- Answers 1, or 0 when there was none. With the last value the count of places goes too.
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HLEN', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[1])
end
return removed
