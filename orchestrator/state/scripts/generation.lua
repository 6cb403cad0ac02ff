-- Included, after lease.lua, by every script that changes what a layer configures: its generation only grows, also over
-- a loss of all that was kept, so that what a runtime holds is never taken for newer than it is.
-- `generations` is a hash: user, or '' for the tenant's own layer -> generation.

local function next_generation(generations, user)
  local last = tonumber(redis.call('HGET', generations, user) or 0)
  redis.call('HSET', generations, user, string.format('%.0f', math.max(last + 1, now_ms())))
end
