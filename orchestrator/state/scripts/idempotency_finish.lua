-- Store the holder's answer, unless another request took the key after the holder's time was over.
-- KEYS: idempotency
-- ARGV: digest of the request, name of the holder, status, body, ms to keep it
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'holder', ARGV[2], 'status', ARGV[3], 'body', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
