-- include: lease.lua
-- include: generation.lua
-- include: journal.lua
-- Store a named value (a secret, a git provider) if its version is the expected one. It keeps the place it first had.
-- KEYS: the hash of the layer, generations, journal
-- ARGV: name, expected version (0: must not exist), new version, text, kind, user or ''
-- Answers 1, or 0 when the version differs. The field holds `<place>:<version>:<text>`.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local place, version
if stored then
  place, version = string.match(stored, '^(%d+):(%d+):')
else
  version = '0'
end
if version ~= ARGV[2] then
  return 0
end
if not place then
  place = string.format('%.0f', redis.call('HINCRBY', KEYS[1], '#', 1))
end
local value = place .. ':' .. ARGV[3] .. ':' .. ARGV[4]
redis.call('HSET', KEYS[1], ARGV[1], value)
next_generation(KEYS[2], ARGV[6])
journal(ARGV[5], ARGV[6] .. '|' .. ARGV[1], value)
return 1
