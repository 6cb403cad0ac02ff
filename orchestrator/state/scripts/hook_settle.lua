-- include: lease.lua
-- include: outbox.lua
-- What became of the head of a lane that somebody claimed; and the next one of the lane, if that may follow at once.
-- KEYS: endpoints, the beginning of the keys of endpoints
-- ARGV: endpoint, lane, mark, entry, outcome (delivered, failed, given_up; back: it was not tried), claim ms,
--       ms the lane rests, ms the endpoint rests, lines of the log that are kept, then the fields of the log's line
-- Answers {'next', mark, entry}, {'rests', failures, ms for which it has failed}, {'empty'} or {'lost'} when somebody
-- else has the lane by now: then nothing but the log is written.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return {'lost'}
end
local now = now_ms()
local o = {prefix = KEYS[2]}
local state = KEYS[2] .. ARGV[1]
local lanes, lane = state .. ':lanes', state .. ':lane:' .. ARGV[2]
if ARGV[5] ~= 'back' then
  redis.call('XADD', state .. ':log', 'MAXLEN', ARGV[9], '*', unpack(ARGV, 10))
end
if redis.call('ZSCORE', lanes, ARGV[2]) ~= ARGV[3] then
  return {'lost'}
end
if ARGV[5] == 'back' then
  redis.call('ZADD', lanes, now, ARGV[2])
  return {'empty'}
end
if ARGV[5] == 'failed' then
  redis.call('HINCRBY', state, 'tries:' .. ARGV[2], 1)
  local failures = redis.call('HINCRBY', state, 'failures', 1)
  redis.call('HSETNX', state, 'failing_since', now)
  redis.call('HSET', state, 'rests_until', now + tonumber(ARGV[8]))
  redis.call('ZADD', lanes, now + tonumber(ARGV[7]), ARGV[2])
  return {'rests', failures, now - tonumber(redis.call('HGET', state, 'failing_since'))}
end
if ARGV[5] == 'delivered' then
  redis.call('HDEL', state, 'failures', 'failing_since', 'rests_until')
end
redis.call('HDEL', state, 'tries:' .. ARGV[2])
if redis.call('LINDEX', lane, 0) == ARGV[4] then -- a marker may have grown while it was sent: then it is sent again
  redis.call('LPOP', lane)
  redis.call('HINCRBY', state, 'bytes', -#ARGV[4])
  redis.call('HINCRBY', state, 'entries', -1)
end
if ARGV[5] == 'given_up' then
  local sequence = string.match(ARGV[4], '^(%d+):') or '0'
  hook_gap(o, ARGV[1], sequence, sequence, 1, 'given_up', now)
end
local following = redis.call('LINDEX', lane, 0)
if not following then
  redis.call('ZREM', lanes, ARGV[2])
  return {'empty'}
end
local mark = string.format('%.0f', now + tonumber(ARGV[6]))
redis.call('ZADD', lanes, mark, ARGV[2])
return {'next', mark, following}
