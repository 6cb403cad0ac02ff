-- include: admission.lua
-- How rules stand for a user and an API key.
-- KEYS: slots, starts, queue, the beginning of the keys of this tenant's conversations
-- ARGV: ask
-- Answers {number of those that wait for a place, current of the first rule, its ms until there is room, current of the
-- second, ...}.
local k, ask, now = {slots = KEYS[1], starts = KEYS[2], queue = KEYS[3]}, cjson.decode(ARGV[1]), now_ms()
local answer = {waiting_for_place(k, KEYS[4], ask.budgets, now)}
for _, rule in ipairs(ask.rules) do
  local current, retry = measure(k, rule, ask.user, ask.key, now)
  table.insert(answer, whole(current))
  table.insert(answer, whole(retry))
end
return answer
