-- include: journal.lua
-- Remove an endpoint with its queue and its log.
-- KEYS: endpoints, wanted, the beginning of the keys of endpoints, journal
-- ARGV: id, version that it has to have or ''
-- Answers 1, or 0 when there is none, or one of another version.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or (ARGV[2] ~= '' and cjson.decode(stored).version ~= tonumber(ARGV[2])) then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
local state = KEYS[3] .. ARGV[1]
for _, lane in ipairs(redis.call('ZRANGE', state .. ':lanes', 0, -1)) do
  redis.call('UNLINK', state .. ':lane:' .. lane)
end
redis.call('UNLINK', state, state .. ':lanes', state .. ':log')
unjournal('hook', ARGV[1])
return 1
