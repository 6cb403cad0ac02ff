-- include: admission.lua
-- include: journal.lua
-- include: operation.lua
-- Store a caller's change if nobody changed the record since, and make it due now. Phase and runtime are not written.
-- The operation that it takes the place of has failed, if it has not ended: in the same step, as nobody comes back to it.
-- Whoever is wanted again (a deletion is taken back) needs its name for itself.
-- KEYS: conversation, due, slots, starts, queue, evictions, operation that is replaced, running operations, names,
--       the beginning of the keys of conversations, journal
-- ARGV: id, expected version, intent, record, ask ('': nothing about slots changes; 'drop': a start that no worker has
--       taken up is not wanted any more), id of the operation that is replaced or '', ms for which that is kept
-- Answers {'stored'}, {'taken', who has the name now}, {'stale'} when the version differs or there is no such conversation, or {'refused', ...}.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then
  return {'stale'}
end
local name = redis.call('HGET', KEYS[1], 'name')
if name and cjson.decode(ARGV[3]).desired ~= 'deleted' then
  local namesake = redis.call('HGET', KEYS[9], name)
  if namesake and namesake ~= ARGV[1] and is_there(KEYS[10] .. namesake) then
    return {'taken', namesake}
  end
  redis.call('HSET', KEYS[9], name, ARGV[1])
end
local now = now_ms()
if ARGV[5] == 'drop' then
  redis.call('HDEL', KEYS[1], 'asked')
elseif ARGV[5] ~= '' then
  local k = {slots = KEYS[3], starts = KEYS[4], queue = KEYS[5], evictions = KEYS[6]}
  local answer = ask_for(k, KEYS[1], ARGV[1], cjson.decode(ARGV[5]), now)
  if answer[1] == 'refused' then
    return answer
  end
  redis.call('HSET', KEYS[1], 'asked', 1)
end
redis.call('HSET', KEYS[1], 'intent', ARGV[3], 'record', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[6] ~= '' then
  end_operation(KEYS[7], KEYS[8], ARGV[6], 'failed', ARGV[7], '')
end
journal_conversation(KEYS[1], ARGV[1])
poke(KEYS[1], KEYS[2], ARGV[1], now)
return {'stored'}
