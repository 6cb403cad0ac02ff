-- Give the key back without an answer, so that a repeat is served anew. A stored answer stays, and another's key.
-- KEYS: idempotency
-- ARGV: name of the holder
local stored = redis.call('HMGET', KEYS[1], 'holder', 'status')
if stored[1] == ARGV[1] and stored[2] == '0' then
  return redis.call('DEL', KEYS[1])
end
return 0
