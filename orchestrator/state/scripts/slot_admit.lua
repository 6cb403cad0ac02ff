-- include: admission.lua
-- Give a waiting conversation a slot, if it still waits and its rules have room, and make it due now.
-- KEYS: conversation, slots, starts, queue, due
-- ARGV: id, ask (whose user and key are the conversation's own)
-- Answers {'admitted'}, {'refused', ...} or {'none'}.
local rank = redis.call('ZRANK', KEYS[4], ARGV[1])
local of = redis.call('HMGET', KEYS[1], 'slot_user', 'slot_key')
if not rank or not of[1] then
  return {'none'}
end
local k, ask, now = {slots = KEYS[2], starts = KEYS[3], queue = KEYS[4]}, cjson.decode(ARGV[2]), now_ms()
local own = {user = of[1], key = of[2], rules = {}}
for _, rule in ipairs(ask.rules) do
  if rule.scope == 'tenant' or (rule.scope == 'user' and of[1] ~= '') or (rule.scope == 'key' and of[2] ~= '') then
    table.insert(own.rules, rule)
  end
end
local no = refusal(k, own, now, 0)
if no then
  return no
end
take_slot(k, KEYS[1], ARGV[1], own, now)
poke(KEYS[1], KEYS[5], ARGV[1], now)
return {'admitted'}
