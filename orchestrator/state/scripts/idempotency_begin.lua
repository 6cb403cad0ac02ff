-- Be the first with an idempotency key, or learn what is stored under it.
-- KEYS: idempotency
-- ARGV: digest of the request, name of the holder, ms until it has to be renewed
-- Answers nil to the first, else {digest, status, body}.
if redis.call('HSETNX', KEYS[1], 'digest', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'status', 0, 'body', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return nil
end
return redis.call('HMGET', KEYS[1], 'digest', 'status', 'body')
