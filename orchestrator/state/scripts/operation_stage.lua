-- include: lease.lua
-- Replace a stage.
-- KEYS: operation
-- ARGV: name, text
-- Answers 1, or 0 when there is no such operation or stage.
if redis.call('HEXISTS', KEYS[1], 'stage:' .. ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'stage:' .. ARGV[1], ARGV[2], 'updated_ms', now_ms())
return 1
