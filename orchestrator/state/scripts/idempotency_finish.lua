-- Store the answer, unless another request took the key after this one's time was over.
-- KEYS: idempotency
-- ARGV: digest of the request, status, body, ms to keep it
local digest = redis.call('HGET', KEYS[1], 'digest')
if digest and digest ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'status', ARGV[2], 'body', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
