-- include: lease.lua
-- include: generation.lua
-- include: journal.lua
-- Remove a named value.
-- KEYS: the hash of the layer, generations, journal
-- ARGV: name, kind, user or '', version that it has to have or ''
-- Answers 1, or 0 when there was none, or one of another version. With the last value the count of places goes too.
if ARGV[4] ~= '' then
  local stored = redis.call('HGET', KEYS[1], ARGV[1])
  if not stored or string.match(stored, '^%d+:(%d+):') ~= ARGV[4] then
    return 0
  end
end
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
if removed == 1 then
  next_generation(KEYS[2], ARGV[3])
  unjournal(ARGV[2], ARGV[3] .. '|' .. ARGV[1])
end
if redis.call('HLEN', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[1])
end
return removed
