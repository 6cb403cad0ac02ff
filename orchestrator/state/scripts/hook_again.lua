-- include: lease.lua
-- include: outbox.lua
-- Put what was told already at the end of its lane once more: all of it, or nothing.
-- KEYS: endpoints, wanted, the beginning of the keys of endpoints
-- ARGV: endpoint, then of each its lane and entry
-- Answers 'queued', 'disabled' when the endpoint does not listen, 'full', or 'gone' when there is no such endpoint.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 'gone'
end
local wanted = redis.call('HGET', KEYS[2], ARGV[1])
if not wanted then
  return 'disabled'
end
local bytes = tonumber(redis.call('HGET', KEYS[3] .. ARGV[1], 'bytes') or 0)
for place = 3, #ARGV, 2 do
  bytes = bytes + #ARGV[place]
end
if bytes > tonumber(string.match(wanted, '^(%d+)|')) then
  return 'full'
end
local now = now_ms()
for place = 2, #ARGV, 2 do
  hook_append({prefix = KEYS[3]}, ARGV[1], ARGV[place], ARGV[place + 1], now)
end
return 'queued'
