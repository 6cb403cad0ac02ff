-- include: admission.lua
-- How rules stand for a user and an API key.
-- KEYS: slots, starts, queue
-- ARGV: ask
-- Answers {number of waiting ones, current of the first rule, its ms until there is room, current of the second, ...}.
local k, ask, now = {slots = KEYS[1], starts = KEYS[2]}, cjson.decode(ARGV[1]), now_ms()
local answer = {redis.call('ZCARD', KEYS[3])}
for _, rule in ipairs(ask.rules) do
  local current, retry = measure(k, rule, ask.user, ask.key, now)
  table.insert(answer, whole(current))
  table.insert(answer, whole(retry))
end
return answer
