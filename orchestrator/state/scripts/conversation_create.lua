-- include: admission.lua
-- include: journal.lua
-- include: outbox.lua
-- Write a conversation unless its id or its name is taken, if its start is admitted or may wait.
-- KEYS: conversation, due, conversations, slots, starts, queue, evictions, wanted hooks,
--       the beginning of the keys of hooks, phases, names, the beginning of the keys of conversations
--       [, other lists that it is in], journal
-- ARGV: id, ask ('': none; 'hold': it runs already and is counted without being asked), index member, user or '',
--       API key or '', intent, phase, runtime, record, version, fence, what hooks are told, name or ''
-- Answers {'created'}, {'exists', parts of who has the id or the name...} or {'refused', name, limit, current, retry ms}.
if redis.call('EXISTS', KEYS[1]) == 1 then
  local stored = parts(KEYS[1])
  table.insert(stored, 1, 'exists')
  return stored
end
local name = ARGV[13]
local is_kept = cjson.decode(ARGV[6]).desired ~= 'deleted'
if name ~= '' and is_kept then
  local namesake = redis.call('HGET', KEYS[11], name)
  if namesake and is_there(KEYS[12] .. namesake) then
    local stored = parts(KEYS[12] .. namesake)
    table.insert(stored, 1, 'exists')
    return stored
  end
end
local now = now_ms()
local k = {slots = KEYS[4], starts = KEYS[5], queue = KEYS[6], evictions = KEYS[7]}
if ARGV[2] == 'hold' then
  count_in(k, KEYS[1], ARGV[1], ARGV[4], ARGV[5], now)
elseif ARGV[2] ~= '' then
  local answer = ask_for(k, KEYS[1], ARGV[1], cjson.decode(ARGV[2]), now)
  if answer[1] == 'refused' then
    return answer
  end
  redis.call('HSET', KEYS[1], 'asked', 1)
end
redis.call('HSET', KEYS[1], 'member', ARGV[3], 'user', ARGV[4], 'intent', ARGV[6], 'phase', ARGV[7], 'runtime', ARGV[8],
  'record', ARGV[9], 'version', ARGV[10], 'fence', ARGV[11], 'log_archived', 0,
  'used_micros', 0, 'used_prompt', 0, 'used_completion', 0)
count_phase(KEYS[10], ARGV[7], 1)
if name ~= '' then
  redis.call('HSET', KEYS[1], 'name', name)
  if is_kept then
    redis.call('HSET', KEYS[11], name, ARGV[1])
  end
end
redis.call('ZADD', KEYS[3], 0, ARGV[3])
for list = 13, #KEYS - 1 do
  redis.call('ZADD', KEYS[list], 0, ARGV[3])
end
redis.call('ZADD', KEYS[2], now, ARGV[1])
journal_conversation(KEYS[1], ARGV[1])
publish({wanted = KEYS[8], prefix = KEYS[9]}, ARGV[1], ARGV[12])
return {'created'}
