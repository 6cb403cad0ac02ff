-- include: lease.lua
-- include: outbox.lua
-- Put something that was told already at the end of its lane once more.
-- KEYS: endpoints, wanted, the beginning of the keys of endpoints
-- ARGV: endpoint, lane, entry
-- Answers 'queued', 'disabled' when the endpoint does not listen, 'full', or 'gone' when there is no such endpoint.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 'gone'
end
local wanted = redis.call('HGET', KEYS[2], ARGV[1])
if not wanted then
  return 'disabled'
end
local bytes = tonumber(redis.call('HGET', KEYS[3] .. ARGV[1], 'bytes') or 0)
if bytes + #ARGV[3] > tonumber(string.match(wanted, '^(%d+)|')) then
  return 'full'
end
hook_append({prefix = KEYS[3]}, ARGV[1], ARGV[2], ARGV[3], now_ms())
return 'queued'
