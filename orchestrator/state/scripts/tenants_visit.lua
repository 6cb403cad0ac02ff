-- include: lease.lua
-- Which tenants may have something due. They are put off for a moment meanwhile, so that other replicas look elsewhere
-- and so that a replica that dies during its visit loses nothing.
-- KEYS: due tenants
-- ARGV: limit, ms to put off
-- Answers {the time they were put off to, tenant, tenant, ...}.
local now = now_ms()
local mark = string.format('%.0f', now + tonumber(ARGV[2]))
local tenants = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, tenant in ipairs(tenants) do
  redis.call('ZADD', KEYS[1], mark, tenant)
end
table.insert(tenants, 1, mark)
return tenants
