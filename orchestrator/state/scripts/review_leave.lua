-- The end of a visit, unless the review was asked for anew meanwhile.
-- KEYS: reviews, where they are
-- ARGV: whose, mark of the visit, the entry that was looked at last ('': the list is at its end)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return redis.call('ZADD', KEYS[1], 0, ARGV[1])
