-- include: admission.lua
-- Hold a place on the host for a while, before the tenant is asked. Confirmed or given back afterwards; what a crash
-- leaves behind ends by itself.
-- KEYS: host slots, host starts
-- ARGV: member, limit (0: none), starts in a window (0: none), window ms, ms to hold
-- Answers {'held'}, {'admitted'} or {'refused', name, limit, current, retry ms}.
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now))
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {'held'}
end
local limit, rate, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local count = redis.call('ZCARD', KEYS[1])
if limit > 0 and count >= limit then
  return {'refused', 'host.runtimes', limit, count, '0'}
end
if rate > 0 then
  local rule = {scope = 'tenant', limit = rate, window_ms = window}
  local current, retry = measure({starts = KEYS[2]}, rule, '', '', now)
  if current >= rate then
    return {'refused', 'host.starts', rate, current, whole(retry)}
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now - window))
  redis.call('ZADD', KEYS[2], now, ARGV[1] .. ':' .. whole(now))
  redis.call('PEXPIRE', KEYS[2], window)
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), ARGV[1])
return {'admitted'}
