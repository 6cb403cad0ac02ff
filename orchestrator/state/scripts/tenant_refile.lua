-- After a visit: file a tenant under the next time at which something of it is due, or not at all.
-- If it was woken during the visit its time is no longer the mark, and is only ever made earlier.
-- KEYS: due tenants
-- ARGV: tenant, mark of the visit, next due ms ('' : nothing is)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
  if ARGV[3] == '' then
    return redis.call('ZREM', KEYS[1], ARGV[1])
  end
  return redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
if ARGV[3] ~= '' then
  return redis.call('ZADD', KEYS[1], 'LT', ARGV[3], ARGV[1])
end
return 0
