-- Append the events that come next: drop those already there, stop at a gap.
-- A message of the user that is kept is noted in the inbox as taken up, with its number here.
-- KEYS: conversation, events, inbox
-- ARGV: for each event its sequence, id, payload, and 1 if it is a message of the user
-- Answers the last sequence kept, or -1 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local last = 0
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if newest[1] then
  last = tonumber(string.match(newest[1][1], '^(%d+)-'))
end
for position = 1, #ARGV, 4 do
  local sequence = tonumber(ARGV[position])
  if sequence == last + 1 then
    redis.call('XADD', KEYS[2], ARGV[position] .. '-0', 'id', ARGV[position + 1], 'payload', ARGV[position + 2])
    if ARGV[position + 3] == '1' then
      redis.call('HSET', KEYS[3], 'accepted:' .. ARGV[position + 1], ARGV[position])
    end
    last = sequence
  elseif sequence > last then
    break
  end
end
return last
