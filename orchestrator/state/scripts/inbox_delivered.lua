-- include: lease.lua
-- Note that a message is with the agent.
-- KEYS: conversation, waiting
-- ARGV: owner, fence, sequence
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[3])
return 1
