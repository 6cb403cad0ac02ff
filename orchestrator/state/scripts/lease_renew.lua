-- include: lease.lua
-- Let a lease run from now again.
-- KEYS: conversation, due
-- ARGV: id, owner, fence, lease ms
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return 0
end
local ends = now_ms() + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'lease_until_ms', ends)
redis.call('ZADD', KEYS[2], ends, ARGV[1])
return 1
