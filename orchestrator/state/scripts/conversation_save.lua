-- include: admission.lua
-- include: journal.lua
-- include: outbox.lua
-- Store what the holder of the lease did, if nobody changed the record since. The intent is not written. The journal
-- gets it when phase or runtime changed, or when it is said so: the rest is of no use after a loss.
-- Hooks are told when the phase changed.
-- KEYS: conversation, slots, queue, evictions, wanted hooks, the beginning of the keys of hooks, phases, journal
-- ARGV: id, owner, fence, expected version, phase, runtime, record, what becomes of its slot ('hold': its runtime runs,
--       so it is counted; 'free': its runtime does not run; '': as it was), user or '', API key or '',
--       what hooks are told, '1' where the journal gets it in any case
-- Answers its parts, 'lost' when the lease is somebody else's, or 'stale' when the version differs.
if not holds(KEYS[1], ARGV[2], ARGV[3]) then
  return 'lost'
end
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[4] then
  return 'stale'
end
local before = redis.call('HMGET', KEYS[1], 'phase', 'runtime')
redis.call('HSET', KEYS[1], 'phase', ARGV[5], 'runtime', ARGV[6], 'record', ARGV[7])
redis.call('HINCRBY', KEYS[1], 'version', 1)
local k = {slots = KEYS[2], queue = KEYS[3], evictions = KEYS[4]}
if ARGV[8] == 'hold' and not redis.call('ZSCORE', k.slots, ARGV[1]) then
  count_in(k, KEYS[1], ARGV[1], ARGV[9], ARGV[10], now_ms())
elseif ARGV[8] == 'free' and redis.call('HEXISTS', KEYS[1], 'asked') == 0 then
  drop_slot(k, KEYS[1], ARGV[1])
end
if before[1] ~= ARGV[5] or before[2] ~= ARGV[6] or ARGV[12] == '1' then
  journal_conversation(KEYS[1], ARGV[1])
end
if before[1] ~= ARGV[5] then
  count_phase(KEYS[7], before[1], -1)
  count_phase(KEYS[7], ARGV[5], 1)
  publish({wanted = KEYS[5], prefix = KEYS[6]}, ARGV[1], ARGV[11])
end
return parts(KEYS[1])
