-- include: admission.lua
-- Which conversations are to make room now.
-- KEYS: evictions
-- Answers their ids.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now_ms()))
return redis.call('ZRANGE', KEYS[1], 0, -1)
