-- include: lease.lua
-- include: outbox.lua
-- Say to an endpoint that what waited for it is lost.
-- KEYS: the beginning of the keys of endpoints
-- ARGV: endpoint
hook_gap({prefix = KEYS[1]}, ARGV[1], '0', '0', 0, 'lost', now_ms())
return 1
