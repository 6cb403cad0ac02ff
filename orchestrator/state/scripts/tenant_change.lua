-- include: lease.lua
-- include: journal.lua
-- include: outbox.lua
-- include: spending.lua
-- Replace a tenant that is there, if it has the version that was read. One without a version has the first. Thresholds of
-- its budget that are reached by that are told; those of its users by what they spend next.
-- KEYS: tenant, the beginning of the keys of ledgers, wanted hooks, the beginning of the keys of hooks, journal
-- ARGV: id, text, expected version, `at` (spending.lua)
-- Answers 1, or 0 when there is none, or one of another version.
local stored = redis.call('GET', KEYS[1])
if not stored or (cjson.decode(stored).version or 1) ~= tonumber(ARGV[3]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
journal('tenant', ARGV[1], ARGV[2])
local s = {tenant = KEYS[1], ledgers = KEYS[2], wanted = KEYS[3], prefix = KEYS[4], at = cjson.decode(ARGV[4])}
local budget = budget_of(s)
if budget and tell_reached(s, budget, '') > 0 then
  journal_ledger(s, '')
end
return 1
