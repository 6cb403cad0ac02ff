-- include: admission.lua
-- The holder of the lease is about to let the conversation's runtime run: the slot that a caller's start was given, or
-- one now.
-- KEYS: conversation, slots, starts, queue, evictions
-- ARGV: id, owner, fence, ask
-- Answers {'held'}, {'admitted'}, {'queued', ...}, {'refused', ...}, or {'lost'} when the lease is somebody else's.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return {'lost'}
end
local k = {slots = KEYS[2], starts = KEYS[3], queue = KEYS[4], evictions = KEYS[5]}
local answer = ask_for(k, KEYS[1], ARGV[1], cjson.decode(ARGV[4]), now_ms())
if answer[1] == 'held' or answer[1] == 'admitted' then
  redis.call('HDEL', KEYS[1], 'asked')
end
return answer
