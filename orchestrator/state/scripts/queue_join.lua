-- include: admission.lua
-- Note that somebody waits in a tenant's queue. Its turn among the tenants stays as it is.
-- KEYS: tenants with a queue
-- ARGV: tenant
return redis.call('ZADD', KEYS[1], 'NX', now_ms(), ARGV[1])
