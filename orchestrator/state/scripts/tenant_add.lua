-- include: journal.lua
-- Write a tenant unless one with the same id is there.
-- KEYS: tenant, journal
-- ARGV: id, text
-- Answers the text of the tenant that is stored.
local stored = redis.call('GET', KEYS[1])
if stored then
  return stored
end
redis.call('SET', KEYS[1], ARGV[2])
journal('tenant', ARGV[1], ARGV[2])
return ARGV[2]
