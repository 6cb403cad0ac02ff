-- Let go of events that the archive has, but for the last one and as many before it as are within the bounds. With a
-- bound of 0 events all of them go: a stream takes some kilobytes, whatever is in it.
-- KEYS: conversation, events
-- ARGV: the last sequence that the archive has, how many events to hold, how many bytes of payloads
-- Answers 1, or -1 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local archived, most, largest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count, bytes, upper, lowest = 0, 0, '+', nil
local done = false
while not done do
  local page = redis.call('XREVRANGE', KEYS[2], upper, '-', 'COUNT', 10) -- few: each may be large
  if #page == 0 then
    break
  end
  for _, entry in ipairs(page) do
    local sequence, size = tonumber(string.match(entry[1], '^(%d+)-')), 0
    for position = 1, #entry[2], 2 do
      if entry[2][position] == 'payload' then
        size = #entry[2][position + 1]
      end
    end
    if sequence <= archived and (most == 0 or count > 0 and (count >= most or bytes + size > largest)) then
      done = true
      break
    end
    count, bytes, lowest = count + 1, bytes + size, entry[1]
  end
  upper = '(' .. page[#page][1]
end
if lowest then
  redis.call('XTRIM', KEYS[2], 'MINID', lowest)
elseif done then
  redis.call('UNLINK', KEYS[2])
end
redis.call('HSET', KEYS[1], 'log_bytes', bytes)
if archived > tonumber(redis.call('HGET', KEYS[1], 'log_archived') or '-1') then
  redis.call('HSET', KEYS[1], 'log_archived', ARGV[1])
end
return 1
