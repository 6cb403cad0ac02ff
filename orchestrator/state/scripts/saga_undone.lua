-- include: lease.lua
-- Forget a step that was undone.
-- KEYS: conversation, saga
-- ARGV: owner, fence, step
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
redis.call('HDEL', KEYS[2], 'place:' .. ARGV[3], 'note:' .. ARGV[3], 'stuck:' .. ARGV[3], 'since:' .. ARGV[3])
if redis.call('HLEN', KEYS[2]) == 1 then
  redis.call('DEL', KEYS[2])
end
return 1
