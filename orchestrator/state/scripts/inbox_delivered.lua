-- include: lease.lua
-- include: journal.lua
-- Note that a message is with the agent.
-- KEYS: conversation, waiting, journal
-- ARGV: owner, fence, sequence, conversation id
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
if redis.call('ZREM', KEYS[2], ARGV[3]) == 1 then
  journal('delivered', ARGV[4] .. '|' .. ARGV[3], '')
end
return 1
