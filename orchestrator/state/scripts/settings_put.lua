-- include: lease.lua
-- include: generation.lua
-- include: journal.lua
-- Store the settings of a layer if their version is the expected one.
-- KEYS: settings, generations, journal
-- ARGV: expected version (0: none), sealed, user or ''
-- Answers 1, or 0 when the version differs.
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[2])
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
next_generation(KEYS[2], ARGV[3])
journal('settings', ARGV[3], string.format('%.0f', version) .. ':' .. ARGV[2])
return 1
