-- Store the settings of a layer if their version is the expected one.
-- KEYS: settings
-- ARGV: expected version (0: none), sealed
-- Answers 1, or 0 when the version differs.
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'version', 1)
return 1
