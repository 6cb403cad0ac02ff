-- include: admission.lua
-- Who of the queue may have a slot now: the first whose own rules have room. A rule of the tenant stops them all.
-- KEYS: slots, starts, queue, the beginning of the keys of this tenant's conversations
-- ARGV: ask (whose user and key are each one's own), how many to look at beside those that a budget keeps
-- Answers {number of waiting ones, id of the first that may, or else of the first that no budget keeps, or else of the
-- first}, followed by what refuses that one: 'refused', name, limit, current, retry ms, scope.
local k, ask, now = {slots = KEYS[1], starts = KEYS[2]}, cjson.decode(ARGV[1]), now_ms()
local first, why, is_kept
local left = tonumber(ARGV[2])
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local of = redis.call('HMGET', KEYS[4] .. id, 'slot_user', 'slot_key')
  if not of[1] then
    redis.call('ZREM', KEYS[3], id)
  else
    local own = {user = of[1], key = of[2], rules = {}}
    for _, rule in ipairs(ask.rules) do
      if rule.scope == 'tenant' or (rule.scope == 'user' and of[1] ~= '') or (rule.scope == 'key' and of[2] ~= '') then
        table.insert(own.rules, rule)
      end
    end
    local no = refusal(k, own, now, 0)
    if not no then
      return {redis.call('ZCARD', KEYS[3]), id}
    end
    local by_budget = string.find(no[2], '.monthly_', 1, true) ~= nil
    if not first or (is_kept and not by_budget) then
      first, why, is_kept = id, no, by_budget
    end
    left = left - (by_budget and 0 or 1)
    if no[6] == 'tenant' or left == 0 then
      break
    end
  end
end
local answer = {redis.call('ZCARD', KEYS[3]), first or ''}
for _, part in ipairs(why or {}) do
  table.insert(answer, part)
end
return answer
