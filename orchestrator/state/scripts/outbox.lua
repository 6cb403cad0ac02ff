-- Included, after lease.lua, by every script that tells a tenant's webhooks of what it changes: what is told is put into
-- the outbox in the same step. Nothing is written, and nothing decoded, when the tenant has no endpoint that listens.
-- `o` holds: wanted (hash: endpoint -> '<bytes its queue may hold>|,<event>,<event>,' or '<bytes>|,*,'), prefix (the
-- beginning of the keys of this tenant's endpoints).
-- Of each endpoint: <prefix><id> (hash: bytes, entries, failures, failing_since, rests_until, tries:<lane>), its lanes
-- <prefix><id>:lane:<conversation, or - for the tenant> (lists, in order), <prefix><id>:lanes (sorted set of the lanes
-- with something in them -> ms at which the first of them is due, or until which somebody sends it), and its delivery
-- log <prefix><id>:log (stream). <prefix># (hash) counts what was told.

local function hook_append(o, endpoint, lane, entry, now)
  local state = o.prefix .. endpoint
  redis.call('RPUSH', state .. ':lane:' .. lane, entry)
  redis.call('HINCRBY', state, 'bytes', #entry)
  redis.call('HINCRBY', state, 'entries', 1)
  redis.call('ZADD', state .. ':lanes', 'NX', now, lane)
end

-- Say that an event is not kept. Markers of one reason that follow each other become one, so they have a bound too.
local function hook_gap(o, endpoint, first, last, count, reason, now)
  local state = o.prefix .. endpoint
  local lane = state .. ':lane:-'
  local newest = redis.call('LINDEX', lane, -1)
  local old_first, _, old_count, old_reason, at = string.match(newest or '', '^gap:(%d+):(%d+):(%d+):(%a[%w_]*):(%d+)$')
  if old_reason == reason then
    local entry = table.concat({'gap', old_first, last, string.format('%.0f', old_count + count), reason, at}, ':')
    redis.call('LSET', lane, -1, entry)
    redis.call('HINCRBY', state, 'bytes', #entry - #newest)
  else
    local entry = table.concat({'gap', first, last, count, reason, string.format('%.0f', now)}, ':')
    hook_append(o, endpoint, '-', entry, now)
  end
end

-- `drafts` is JSON: {{type, text}, ...}. Answers how many endpoints were told of something.
local function publish(o, lane, drafts)
  local takers = redis.call('HGETALL', o.wanted)
  if #takers == 0 then
    return 0
  end
  local now, told = now_ms(), 0
  for _, draft in ipairs(cjson.decode(drafts)) do
    local sequence = nil
    for place = 1, #takers, 2 do
      local limit, events = string.match(takers[place + 1], '^(%d+)|(.*)$')
      if events == ',*,' or string.find(events, ',' .. draft[1] .. ',', 1, true) then
        sequence = sequence or string.format('%.0f', redis.call('HINCRBY', o.prefix .. '#', 'sequence', 1))
        local entry = sequence .. ':' .. draft[2]
        local bytes = tonumber(redis.call('HGET', o.prefix .. takers[place], 'bytes') or 0)
        if bytes + #entry > tonumber(limit) then
          hook_gap(o, takers[place], sequence, sequence, 1, 'full', now)
        else
          hook_append(o, takers[place], lane, entry, now)
        end
        told = told + 1
      end
    end
  end
  return told
end
