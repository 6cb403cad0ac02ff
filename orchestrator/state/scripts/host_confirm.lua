-- include: admission.lua
-- What was held is used: it counts until it is given back, or until nobody confirms it again.
-- KEYS: host slots
-- ARGV: member, ms until it has to be confirmed again
-- Answers 1 if it is new, else 0.
return redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
