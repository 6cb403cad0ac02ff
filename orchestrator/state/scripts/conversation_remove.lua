-- include: admission.lua
-- include: journal.lua
-- Remove a conversation and all that belongs to it. Its operations stay for their time, so that the deletion itself can
-- still be read; those that did not end get that time now.
-- KEYS: conversation, due, conversations, inbox, waiting, events, saga, running operations, slots, queue, evictions,
--       the beginning of the keys of this tenant's users, of its operations, phases, bare runtimes, names, journal
-- ARGV: id, owner, fence, ms for which operations stay
-- Answers 1, or 0 when the lease is somebody else's.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return 0
end
drop_slot({slots = KEYS[9], queue = KEYS[10], evictions = KEYS[11]}, KEYS[1], ARGV[1])
local index = redis.call('HMGET', KEYS[1], 'member', 'user', 'phase', 'name')
count_phase(KEYS[14], index[3], -1)
redis.call('ZREM', KEYS[3], index[1])
redis.call('ZREM', KEYS[15], index[1])
if index[2] ~= '' then
  redis.call('ZREM', KEYS[12] .. index[2] .. ':conversations', index[1])
  redis.call('ZREM', KEYS[12] .. index[2] .. ':runtimes', index[1])
end
if index[4] and redis.call('HGET', KEYS[16], index[4]) == ARGV[1] then
  redis.call('HDEL', KEYS[16], index[4])
end
redis.call('ZREM', KEYS[2], ARGV[1])
for _, operation in ipairs(redis.call('SMEMBERS', KEYS[8])) do
  redis.call('PEXPIRE', KEYS[13] .. operation, ARGV[4])
end
redis.call('UNLINK', KEYS[1], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
unjournal('conversation', ARGV[1])
return 1
