-- include: journal.lua
-- Replace a tenant that is there.
-- KEYS: tenant, journal
-- ARGV: id, text
-- Answers 1, or 0 when there is none.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
journal('tenant', ARGV[1], ARGV[2])
return 1
