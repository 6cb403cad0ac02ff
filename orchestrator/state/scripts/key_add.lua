-- include: journal.lua
-- Write an API key of a tenant.
-- KEYS: keys, journal
-- ARGV: id, text
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
journal('key', ARGV[1], ARGV[2])
return 1
