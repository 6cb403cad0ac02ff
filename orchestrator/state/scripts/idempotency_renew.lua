-- The holder still serves its request.
-- KEYS: idempotency
-- ARGV: name of the holder, ms until it has to be renewed again
local stored = redis.call('HMGET', KEYS[1], 'holder', 'status')
if stored[1] == ARGV[1] and stored[2] == '0' then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
