-- include: lease.lua
-- Store what the holder of the lease did, if nobody changed the record since. The intent is not written.
-- KEYS: conversation, live
-- ARGV: id, owner, fence, expected version, phase, runtime, record, 1 if it counts as live
-- Answers its parts, 'lost' when the lease is somebody else's, or 'stale' when the version differs.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return 'lost'
end
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[4] then
  return 'stale'
end
redis.call('HSET', KEYS[1], 'phase', ARGV[5], 'runtime', ARGV[6], 'record', ARGV[7])
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call(ARGV[8] == '1' and 'SADD' or 'SREM', KEYS[2], ARGV[1])
return parts(KEYS[1])
