-- include: lease.lua
-- include: journal.lua
-- include: outbox.lua
-- include: spending.lua
-- Take over what a runtime says its conversation has used in all, told beside its log.
-- KEYS: conversation, tenant, the beginning of the keys of ledgers, wanted hooks, the beginning of the keys of hooks,
--       journal
-- ARGV: conversation id, `at` (spending.lua), micros, prompt tokens, completion tokens
-- Answers 1, or -1 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local s = {tenant = KEYS[2], ledgers = KEYS[3], wanted = KEYS[4], prefix = KEYS[5], at = cjson.decode(ARGV[2])}
charge(s, KEYS[1], ARGV[1], {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])})
return 1
