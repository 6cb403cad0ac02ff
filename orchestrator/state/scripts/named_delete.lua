-- include: lease.lua
-- include: generation.lua
-- include: journal.lua
-- Remove a named value.
-- KEYS: the hash of the layer, generations, journal
-- ARGV: name, kind, user or ''
-- Answers 1, or 0 when there was none. With the last value the count of places goes too.
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
if removed == 1 then
  next_generation(KEYS[2], ARGV[3])
  unjournal(ARGV[2], ARGV[3] .. '|' .. ARGV[1])
end
if redis.call('HLEN', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[1])
end
return removed
