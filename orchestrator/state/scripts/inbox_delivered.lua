-- include: lease.lua
-- include: outbox.lua
-- include: journal.lua
-- Note that a message is with the agent, and tell hooks of it.
-- KEYS: conversation, waiting, wanted hooks, the beginning of the keys of hooks, journal
-- ARGV: owner, fence, sequence, conversation id, what hooks are told of it ('': nothing)
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
if redis.call('ZREM', KEYS[2], ARGV[3]) == 1 then
  journal('delivered', ARGV[4] .. '|' .. ARGV[3], '')
  if ARGV[5] ~= '' then
    publish({wanted = KEYS[3], prefix = KEYS[4]}, ARGV[4], ARGV[5])
  end
end
return 1
