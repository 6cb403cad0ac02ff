-- Ask for a review, from the beginning of the list: one under way begins anew.
-- KEYS: reviews, where they are, for what all were reviewed last
-- ARGV: whose, for what ('': for something new; else it is not asked again for the same)
-- Answers 1, or 0 when nothing was asked.
if ARGV[2] ~= '' and redis.call('SET', KEYS[3], ARGV[2], 'GET') == ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
