-- include: lease.lua
-- include: journal.lua
-- End an operation; the first end counts.
-- KEYS: operation, running operations of the conversation, journal
-- ARGV: id, state, ms for which it is kept, failure or ''
-- Answers 1, or 0 when there is no such operation.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return 0
end
if state == 'running' then
  redis.call('HSET', KEYS[1], 'state', ARGV[2], 'updated_ms', now_ms(), 'failure', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('SREM', KEYS[2], ARGV[1])
  unjournal('operation', ARGV[1])
end
return 1
