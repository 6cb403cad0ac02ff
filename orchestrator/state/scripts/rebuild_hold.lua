-- Be, or stay, the one who writes everything anew after a loss.
-- KEYS: rebuild, epoch
-- ARGV: owner, ms
-- Answers 1, or 0 when another one is, or when it is done.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
