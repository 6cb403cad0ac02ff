-- include: admission.lua
-- Note that a tenant's queue was served: it goes behind the others. One that is not in line comes in at its end.
-- KEYS: tenants with a queue
-- ARGV: tenant
return redis.call('ZADD', KEYS[1], now_ms(), ARGV[1])
