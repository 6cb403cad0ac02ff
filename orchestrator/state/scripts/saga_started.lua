-- include: lease.lua
-- Note that a step may run from now on. One that began before keeps its place and loses its stuck message.
-- KEYS: conversation, saga
-- ARGV: owner, fence, step, note
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
if redis.call('HEXISTS', KEYS[2], 'place:' .. ARGV[3]) == 0 then
  redis.call('HSET', KEYS[2], 'place:' .. ARGV[3], redis.call('HINCRBY', KEYS[2], '#', 1))
end
redis.call('HSET', KEYS[2], 'note:' .. ARGV[3], ARGV[4])
redis.call('HDEL', KEYS[2], 'stuck:' .. ARGV[3], 'since:' .. ARGV[3])
return 1
