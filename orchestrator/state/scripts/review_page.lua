-- include: lease.lua
-- Make due what rests on one page of a list, unless as much of the tenant is due already.
-- KEYS: list of conversations, due, the beginning of the keys of this tenant's conversations
-- ARGV: the entry that was looked at last or '', entries of a page
-- Answers {the last entry of the page, '' at the end of the list, how many were made due}, or nothing while much is due.
local now, limit = now_ms(), tonumber(ARGV[2])
if redis.call('ZCOUNT', KEYS[2], '-inf', now) >= limit then
  return {}
end
local start = ARGV[1] == '' and '+' or '(' .. ARGV[1]
local page = redis.call('ZREVRANGEBYLEX', KEYS[1], start, '-', 'LIMIT', 0, limit)
local made = 0
for _, entry in ipairs(page) do
  local id = string.match(entry, ':(.*)$')
  local phase = redis.call('HGET', KEYS[3] .. id, 'phase')
  if phase == 'stopped' or phase == 'failed' then
    poke(KEYS[3] .. id, KEYS[2], id, now)
    made = made + 1
  end
end
return {#page == limit and page[limit] or '', made}
