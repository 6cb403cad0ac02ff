-- include: admission.lua
-- Ask a ready conversation to make room: its worker pauses it, or says that it cannot be spared. Due now.
-- KEYS: conversation, slots, evictions, due
-- ARGV: id, ms for which the mark holds
-- Answers 1, or 0 when it has no slot, is not ready, is not wanted to run, or is marked already.
local now = now_ms()
local until_ms = redis.call('ZSCORE', KEYS[3], ARGV[1])
if until_ms and tonumber(until_ms) > now then
  return 0
end
local record = redis.call('HMGET', KEYS[1], 'phase', 'intent')
if record[1] ~= 'ready' or not redis.call('ZSCORE', KEYS[2], ARGV[1]) or cjson.decode(record[2]).desired ~= 'running' then
  return 0
end
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), ARGV[1])
poke(KEYS[1], KEYS[4], ARGV[1], now)
return 1
