-- Included by every script that deals with leases. A lease lives in the hash of its conversation, in the fields
-- lease_owner and lease_until_ms (both absent: nobody holds it); `fence` stays when the lease is gone and only grows.
-- `poked` says that somebody asked for something while the lease was held.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The lease counts until somebody else takes it, also after its time: whoever took it has a higher fence.
local function holds(conversation, owner, fence)
  local held = redis.call('HMGET', conversation, 'lease_owner', 'fence')
  return held[1] == owner and held[2] == fence
end

local function parts(conversation)
  return redis.call('HMGET', conversation, 'intent', 'phase', 'runtime', 'record', 'version', 'fence')
end

-- Whether somebody has this id, and is not deleted.
local function is_there(conversation)
  local intent = redis.call('HGET', conversation, 'intent')
  local sound, wanted = pcall(cjson.decode, intent or '')
  return sound and type(wanted) == 'table' and wanted.desired ~= 'deleted'
end

-- One more (1) or less (-1) of the tenant's conversations is in that phase.
local function count_phase(phases, phase, by)
  if redis.call('HINCRBY', phases, phase, by) == 0 then
    redis.call('HDEL', phases, phase)
  end
end

-- Whether a version that knows schemas up to this one can read the record. One that is damaged, or written by a newer
-- version, is granted to nobody, so that nothing of it changes.
local function is_readable(conversation, schema)
  local stored = redis.call('HMGET', conversation, 'record', 'intent')
  local sound, record = pcall(cjson.decode, stored[1])
  if not sound or type(record) ~= 'table' or not pcall(cjson.decode, stored[2]) then
    return false
  end
  return (tonumber(record.schema) or 1) <= tonumber(schema)
end

-- Give the lease to owner, with a fence higher than ever before. One more; but in another era, after the server lost its
-- last moments, more than can have been given in them: whoever got a lease then may act on it still.
local function grant(conversation, due, id, owner, now, lease_ms, era)
  local ends = now + lease_ms
  local present = redis.call('GET', era)
  local leap = 1
  if present and redis.call('HGET', conversation, 'era') ~= present then
    leap = 1048576
    redis.call('HSET', conversation, 'era', present)
  end
  redis.call('HINCRBY', conversation, 'fence', leap)
  redis.call('HSET', conversation, 'lease_owner', owner, 'lease_until_ms', ends)
  redis.call('HDEL', conversation, 'poked')
  redis.call('ZADD', due, ends, id)
  return parts(conversation)
end

-- Make the conversation due now. Under a lease nobody else could act, so remember it for the end of the lease. A lease
-- that is over may still be given back by a late holder, so it is remembered in that case as well.
local function poke(conversation, due, id, now)
  local held = redis.call('HMGET', conversation, 'lease_owner', 'lease_until_ms')
  if held[1] then
    redis.call('HSET', conversation, 'poked', 1)
  end
  if not held[2] or tonumber(held[2]) <= now then
    redis.call('ZADD', due, now, id)
  end
end
