-- Take calls out of one bucket or several: as many as all of them have, at most so many as are wanted.
-- KEYS: buckets (strings: ms at which the bucket is full again; where there is none it is full)
-- ARGV: wanted, then for each bucket calls in a second and calls that it holds
-- Answers {granted, place of the emptiest bucket, ms until that one has a call}; a bucket goes by itself when it is full.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local granted, least, wait = tonumber(ARGV[1]), 0, 0
local buckets = {}
for place, key in ipairs(KEYS) do
  local each, holds = 1000 / tonumber(ARGV[2 * place]), tonumber(ARGV[2 * place + 1])
  local full = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local room = holds - (full - now) / each
  buckets[place] = {key = key, each = each, full = full}
  if math.floor(room + 0.001) < granted then
    granted, least = math.max(0, math.floor(room + 0.001)), place
    wait = math.max(1, math.ceil((1 - room) * each))
  end
end
if granted == 0 then
  return {0, least, wait}
end
for _, bucket in ipairs(buckets) do
  local full = bucket.full + granted * bucket.each
  redis.call('SET', bucket.key, string.format('%.3f', full), 'PX', math.ceil(full - now) + 1)
end
return {granted, 0, 0}
