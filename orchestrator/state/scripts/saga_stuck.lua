-- include: lease.lua
-- Note that the undo of a step failed, and when it did so first.
-- KEYS: conversation, saga
-- ARGV: owner, fence, step, message
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
if redis.call('HEXISTS', KEYS[2], 'place:' .. ARGV[3]) == 1 then
  redis.call('HSET', KEYS[2], 'stuck:' .. ARGV[3], ARGV[4])
  redis.call('HSETNX', KEYS[2], 'since:' .. ARGV[3], redis.call('TIME')[1])
end
return 1
