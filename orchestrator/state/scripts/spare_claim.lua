-- Take the spare that has been ready for longest for one conversation: it is that conversation's from this moment, and
-- is never ready again. A conversation that has one already gets no second one.
-- KEYS: ready (of this kind), unbound, bound, counts, beginning of the keys of spares
-- ARGV: tenant/conversation, tenant, conversation, generation
-- Answers {'none'}, {'held', name}, or {'claimed', name, reference, address, sealed init key}.
local held = redis.call('HGET', KEYS[3], ARGV[1])
if held then
  return {'held', held}
end
local first = redis.call('ZPOPMIN', KEYS[1])
if not first[1] then
  redis.call('HINCRBY', KEYS[4], 'misses', 1)
  return {'none'}
end
local spare = KEYS[5] .. first[1]
redis.call('SREM', KEYS[2], first[1])
redis.call('HSET', KEYS[3], ARGV[1], first[1])
redis.call('HINCRBY', KEYS[4], 'hits', 1)
local found = redis.call('HMGET', spare, 'reference', 'address', 'key')
redis.call('HSET', spare, 'state', 'bound', 'tenant', ARGV[2], 'conversation', ARGV[3], 'generation', ARGV[4])
redis.call('HDEL', spare, 'key')
return {'claimed', first[1], found[1], found[2], found[3]}
