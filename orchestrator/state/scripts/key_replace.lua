-- include: journal.lua
-- Replace the text of an API key if it is the one that was read.
-- KEYS: keys, journal
-- ARGV: id, text that was read, new text
-- Answers 1, or 0 when it differs.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
journal('key', ARGV[1], ARGV[3])
return 1
