-- include: journal.lua
-- Write a wrapped data key unless that version is there.
-- KEYS: data keys, journal
-- ARGV: version, wrapped
-- Answers the one that is stored.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  journal('data_key', ARGV[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], ARGV[1])
