-- Note again whose a spare is, from its conversation's record: after a loss, or where a claim was lost with the end of
-- what was stored. It is nobody else's then.
-- KEYS: spare, unbound, leaving, bound, beginning of making, beginning of ready
-- ARGV: name, tenant, conversation, generation
local kind = redis.call('HGET', KEYS[1], 'kind')
if kind then
  redis.call('ZREM', KEYS[5] .. kind, ARGV[1])
  redis.call('ZREM', KEYS[6] .. kind, ARGV[1])
end
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'bound', 'tenant', ARGV[2], 'conversation', ARGV[3], 'generation', ARGV[4])
redis.call('HDEL', KEYS[1], 'key')
redis.call('HSET', KEYS[4], ARGV[2] .. '/' .. ARGV[3], ARGV[1])
return 1
