-- include: admission.lua
-- Give a place on the host back; and, when the start did not happen, what was counted for it last.
-- KEYS: host slots, host starts
-- ARGV: member, 1 to take the start back
-- Answers 1, or 0 when there was none.
if ARGV[2] == '1' then
  local latest = redis.call('ZREVRANGE', KEYS[2], 0, 99)
  for _, start in ipairs(latest) do
    if string.sub(start, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then
      redis.call('ZREM', KEYS[2], start)
      break
    end
  end
end
return redis.call('ZREM', KEYS[1], ARGV[1])
