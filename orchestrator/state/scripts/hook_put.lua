-- include: lease.lua
-- include: outbox.lua
-- include: journal.lua
-- Store an endpoint if its version is the expected one, and tell the others of it.
-- KEYS: endpoints, wanted, the beginning of the keys of endpoints, journal
-- ARGV: id, expected version (0: must not exist), text, what it wants ('': it is disabled), limit of endpoints, what is
--       told to those that listen afterwards ('': nothing)
-- Answers {'stored'}, {'stale'} or {'limit', number}. One that listens again begins anew, and is told that events are
-- missing.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local version = stored and string.format('%.0f', cjson.decode(stored).version) or '0'
if version ~= ARGV[2] then
  return {'stale'}
end
if not stored and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
  return {'limit', redis.call('HLEN', KEYS[1])}
end
local o = {wanted = KEYS[2], prefix = KEYS[3]}
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  if stored and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
    redis.call('HDEL', KEYS[3] .. ARGV[1], 'failures', 'failing_since', 'rests_until')
    for _, field in ipairs(redis.call('HKEYS', KEYS[3] .. ARGV[1])) do
      if string.sub(field, 1, 6) == 'tries:' then
        redis.call('HDEL', KEYS[3] .. ARGV[1], field)
      end
    end
    hook_gap(o, ARGV[1], '0', '0', 0, 'disabled', now_ms())
  end
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
journal('hook', ARGV[1], ARGV[3])
if ARGV[6] ~= '' then
  publish(o, '-', ARGV[6])
end
return {'stored'}
