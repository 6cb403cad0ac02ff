-- The archive's last event: where the server knew less, hold it, so that the log goes on from there.
-- KEYS: conversation, events
-- ARGV: its sequence (0: the archive has nothing), id, payload, the first sequence for which it stands
-- Answers 1, or -1 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local archived = tonumber(ARGV[1])
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local last = newest[1] and tonumber(string.match(newest[1][1], '^(%d+)-')) or 0
if archived > last then
  redis.call('UNLINK', KEYS[2]) -- all of it is in the archive, and a hole must not be
  local fields = {'id', ARGV[2], 'payload', ARGV[3]}
  if ARGV[4] ~= ARGV[1] then
    fields[5], fields[6] = 'first', ARGV[4]
  end
  redis.call('XADD', KEYS[2], ARGV[1] .. '-0', unpack(fields))
  redis.call('HSET', KEYS[1], 'log_bytes', #ARGV[3])
end
local known = tonumber(redis.call('HGET', KEYS[1], 'log_archived') or '-1')
if archived > known then
  redis.call('HSET', KEYS[1], 'log_archived', ARGV[1])
end
return 1
