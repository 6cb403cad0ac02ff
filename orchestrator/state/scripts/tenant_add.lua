-- include: journal.lua
-- Write a tenant.
-- KEYS: tenant, journal
-- ARGV: id, text
redis.call('SET', KEYS[1], ARGV[2])
journal('tenant', ARGV[1], ARGV[2])
return 1
