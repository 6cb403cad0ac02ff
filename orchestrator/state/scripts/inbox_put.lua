-- include: lease.lua
-- include: journal.lua
-- Append a message and make its conversation due now, unless its client id is known.
-- KEYS: conversation, due, inbox, waiting, journal
-- ARGV: conversation id, client id, content, limit of waiting ones, the id of the event that it will be
-- Answers {sequence, content, 1 if delivered}, {'gone'} or {'limit', number of waiting ones}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'gone'}
end
local known = redis.call('HGET', KEYS[3], 'client:' .. ARGV[2])
if known then
  local waits = redis.call('ZSCORE', KEYS[4], known)
  return {known, redis.call('HGET', KEYS[3], 'content:' .. known), waits and 0 or 1}
end
local count = redis.call('ZCARD', KEYS[4])
if count >= tonumber(ARGV[4]) then
  return {'limit', count}
end
local sequence = string.format('%.0f', redis.call('HINCRBY', KEYS[3], '#', 1))
redis.call('HSET', KEYS[3], 'client:' .. ARGV[2], sequence, 'content:' .. sequence, ARGV[3], 'of:' .. sequence, ARGV[2],
  'event:' .. ARGV[5], ARGV[2])
redis.call('ZADD', KEYS[4], sequence, sequence)
journal('message', ARGV[1] .. '|' .. sequence, cjson.encode({ARGV[2], ARGV[3]}))
poke(KEYS[1], KEYS[2], ARGV[1], now_ms())
return {sequence, ARGV[3], 0}
