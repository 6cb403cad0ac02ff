-- include: lease.lua
-- include: journal.lua
-- Write an operation unless its id is taken, and note it at its conversation while it runs.
-- KEYS: operation, running operations of the conversation, conversation, journal
-- ARGV: id, state, text, ms for which it is kept once its conversation is gone, then name and text of each stage
-- Answers 1, or 0 when it was there.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'text', ARGV[3], 'updated_ms', now_ms())
for position = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 'stage:' .. ARGV[position], ARGV[position + 1])
end
if redis.call('EXISTS', KEYS[3]) == 0 or ARGV[2] ~= 'running' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
else
  redis.call('SADD', KEYS[2], ARGV[1])
end
if ARGV[2] == 'running' then
  journal('operation', ARGV[1], ARGV[3])
end
return 1
