-- include: admission.lua
-- Give up the slot or the place in the queue: nothing of this conversation runs any more. One that a caller asked for
-- meanwhile is kept, unless it is that wish that is given up.
-- KEYS: conversation, slots, queue, evictions
-- ARGV: id, owner, fence, 1 to give up what was asked for as well
-- Answers 1 when there was one, 0 when not, -1 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return -1
end
if ARGV[4] == '0' and redis.call('HEXISTS', KEYS[1], 'asked') == 1 then
  return 0
end
return drop_slot({slots = KEYS[2], queue = KEYS[3], evictions = KEYS[4]}, KEYS[1], ARGV[1])
