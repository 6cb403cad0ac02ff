-- include: journal.lua
-- Replace a tenant that is there, if it has the version that was read. One without a version has the first.
-- KEYS: tenant, journal
-- ARGV: id, text, expected version
-- Answers 1, or 0 when there is none, or one of another version.
local stored = redis.call('GET', KEYS[1])
if not stored or (cjson.decode(stored).version or 1) ~= tonumber(ARGV[3]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
journal('tenant', ARGV[1], ARGV[2])
return 1
