-- include: lease.lua
-- Forget all steps: the start is committed, or nothing of it is left.
-- KEYS: conversation, saga
-- ARGV: owner, fence
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
redis.call('UNLINK', KEYS[2])
return 1
