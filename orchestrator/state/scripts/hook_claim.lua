-- include: lease.lua
-- Take lanes that are due, each until a time of its own: its mark. Nobody else takes one before that.
-- KEYS: wanted, the beginning of the keys of endpoints
-- ARGV: limit, claim ms
-- Answers {next due ms ('': nothing waits), endpoint, lane, mark, tries, entry, endpoint, ...}. Of an endpoint that
-- failed last, one lane is tried at a time, after its rest.
local now = now_ms()
local mark = string.format('%.0f', now + tonumber(ARGV[2]))
local left = tonumber(ARGV[1])
local answer, soonest = {''}, nil
for _, endpoint in ipairs(redis.call('HKEYS', KEYS[1])) do
  local state = KEYS[2] .. endpoint
  local standing = redis.call('HMGET', state, 'failures', 'rests_until')
  local failing = tonumber(standing[1] or 0) > 0
  local rests_until = tonumber(standing[2] or 0)
  if rests_until <= now and left > 0 then
    local most = failing and 1 or left
    for _, lane in ipairs(redis.call('ZRANGEBYSCORE', state .. ':lanes', '-inf', now, 'LIMIT', 0, most)) do
      local entry = redis.call('LINDEX', state .. ':lane:' .. lane, 0)
      redis.call('ZADD', state .. ':lanes', mark, lane)
      for _, part in ipairs({endpoint, lane, mark, redis.call('HGET', state, 'tries:' .. lane) or '0', entry}) do
        table.insert(answer, part)
      end
      left = left - 1
      if failing then
        rests_until = now + tonumber(ARGV[2])
        redis.call('HSET', state, 'rests_until', rests_until)
      end
    end
  end
  local first = redis.call('ZRANGE', state .. ':lanes', 0, 0, 'WITHSCORES')
  if first[2] then
    local due = math.max(tonumber(first[2]), rests_until, now)
    soonest = soonest and math.min(soonest, due) or due
  end
end
if soonest then
  answer[1] = string.format('%.0f', soonest)
end
return answer
