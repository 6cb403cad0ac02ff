-- include: journal.lua
-- Write a user unless one with the same external id, or the same id, is there.
-- KEYS: users, users index, external ids, journal
-- ARGV: id, external id or '', index member, text
-- Answers the text of the user that is stored.
local id = ARGV[1]
if ARGV[2] ~= '' then
  id = redis.call('HGET', KEYS[3], ARGV[2]) or id
end
local stored = redis.call('HGET', KEYS[1], id)
if stored then
  return stored
end
redis.call('HSET', KEYS[1], id, ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[3])
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[2], id)
end
journal('user', id, ARGV[4])
return ARGV[4]
