-- include: lease.lua
-- Note that something of a tenant is due in a while. Never makes an earlier time later.
-- KEYS: due tenants
-- ARGV: tenant, ms from now
return redis.call('ZADD', KEYS[1], 'LT', now_ms() + tonumber(ARGV[2]), ARGV[1])
