-- include: lease.lua
-- Take the lease of one conversation, whether it is due or not.
-- KEYS: conversation, due, era
-- ARGV: id, owner, lease ms, schema
-- Answers its parts, or nil when a lease is running, or there is no such conversation, or none that can be read.
local now = now_ms()
if redis.call('EXISTS', KEYS[1]) == 0 or not is_readable(KEYS[1], ARGV[4]) then
  return nil
end
local ends = redis.call('HGET', KEYS[1], 'lease_until_ms')
if ends and tonumber(ends) > now then
  return nil
end
return grant(KEYS[1], KEYS[2], ARGV[1], ARGV[2], now, tonumber(ARGV[3]), KEYS[3])
