-- include: lease.lua
-- include: outbox.lua
-- Tell something that is no change of a stored object.
-- KEYS: wanted, the beginning of the keys of endpoints
-- ARGV: lane, drafts, name of what is told once in a while ('': always), ms of that while
-- Answers how many endpoints were told.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if ARGV[3] ~= '' and not redis.call('SET', KEYS[2] .. '#once:' .. ARGV[3], 1, 'NX', 'PX', ARGV[4]) then
  return 0
end
return publish({wanted = KEYS[1], prefix = KEYS[2]}, ARGV[1], ARGV[2])
