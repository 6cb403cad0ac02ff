-- include: lease.lua
-- The review that somebody should go on with. It is put off for a moment meanwhile, so that a visitor that dies loses
-- nothing and others look elsewhere.
-- KEYS: reviews, where they are
-- ARGV: ms to put off
-- Answers nothing, or {whose, mark of the visit, the entry that was looked at last or ''}.
local now = now_ms()
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)[1]
if not first then
  return {}
end
local mark = string.format('%.0f', now + tonumber(ARGV[1]))
redis.call('ZADD', KEYS[1], mark, first)
return {first, mark, redis.call('HGET', KEYS[2], first) or ''}
