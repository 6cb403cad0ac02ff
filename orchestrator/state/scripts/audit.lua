-- Included by journal.lua and audit_put.lua: an entry of an audit log, written once, and the oldest let go.
-- argument: JSON of {member of the index, id, member before which nothing is kept, how many are kept, beginning of the
-- text}. tail: the rest of the text. stream: the journal, which has all of it as well, or nil. again: in the place of
-- the one that is there.
local function audit_keep(entries, index, stream, argument, tail, again)
  local told = cjson.decode(argument)
  local text = told[5] .. tail
  if redis.call('HSETNX', entries, told[2], text) == 0 then
    if not again then
      return 0
    end
    redis.call('HSET', entries, told[2], text)
  end
  redis.call('ZADD', index, 0, told[1])
  if stream then
    redis.call('XADD', stream, '*', 'kind', 'audit', 'id', told[2], 'body', text)
  end
  -- A few more than come, so that a log that was made shorter gets there, and no step is long.
  local surplus = redis.call('ZCARD', index) - told[4]
  for place, member in ipairs(redis.call('ZRANGE', index, 0, 3)) do
    if place <= surplus or member < told[3] then
      local id = string.sub(member, 15)
      redis.call('ZREM', index, member)
      redis.call('HDEL', entries, id)
      if stream then
        redis.call('XADD', stream, '*', 'kind', 'audit', 'id', id)
      end
    end
  end
  return 1
end
