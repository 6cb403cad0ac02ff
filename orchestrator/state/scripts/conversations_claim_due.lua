-- include: lease.lua
-- Take the leases of conversations of one tenant that are due and not held, the longest due first.
-- KEYS: due, the beginning of the keys of this tenant's conversations, era
-- ARGV: owner, lease ms, limit, schema, ms until one that cannot be read is looked at again
-- Answers {next due ms or '', parts of the first, parts of the second, ...}.
local now = now_ms()
local answer = {''}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))) do
  local conversation = KEYS[2] .. id
  local ends = redis.call('HGET', conversation, 'lease_until_ms')
  if redis.call('EXISTS', conversation) == 0 then
    redis.call('ZREM', KEYS[1], id)
  elseif ends and tonumber(ends) > now then
    redis.call('ZADD', KEYS[1], ends, id)
  elseif not is_readable(conversation, ARGV[4]) then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), id)
  else
    table.insert(answer, grant(conversation, KEYS[1], id, ARGV[1], now, tonumber(ARGV[2]), KEYS[3]))
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then
  -- Not earlier than now: a tenant with much to do goes to the end of the line of tenants.
  answer[1] = string.format('%.0f', math.max(tonumber(first[2]), now))
end
return answer
