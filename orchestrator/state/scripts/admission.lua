-- include: lease.lua
-- Included by every script that deals with slots: the right of a conversation to have a runtime that runs.
-- `k` holds the tenant's keys: slots (sorted set: conversation -> last use), starts (sorted set of one start each),
-- queue (sorted set of waiting conversations, in order), evictions (sorted set: conversation that is to make room -> until).
-- Counted by user and API key as well: the keys `<slots>:user:<id>` (sets) and `<starts>:user:<id>` (sorted sets).
-- In the conversation's hash: slot_user and slot_key (who it is counted for), asked (a caller's start that no worker has
-- taken up: a release that belongs to the time before must not take its slot away), queue_until_ms.
-- `ask` is JSON: user, key, rules {name, scope, limit, window_ms, unit, month, ends_ms}, queue, wait_ms, behind. A rule with
-- a unit (usd, tokens) is of what was spent in that month: `<slots>:spent:<month>`, as spending.lua writes it. `budgets`:
-- the rules of that kind for each user, by which those that wait are told from those that wait for a place.

local function scoped(prefix, scope, user, key)
  if scope == 'tenant' then
    return prefix
  end
  return prefix .. ':' .. scope .. ':' .. (scope == 'user' and user or key)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- How one rule stands: current, ms until the start is forgotten that is one too many (0 while there is room).
local function measure(k, rule, user, key, now)
  if rule.unit then
    local ledger = scoped(k.slots .. ':spent:' .. rule.month, rule.scope, user, key)
    local spent = redis.call('HMGET', ledger, 'micros', 'prompt', 'completion')
    local current = tonumber(spent[1] or 0)
    if rule.unit == 'tokens' then
      current = tonumber(spent[2] or 0) + tonumber(spent[3] or 0)
    end
    return current, current < rule.limit and 0 or math.max(0, rule.ends_ms - now)
  end
  if rule.window_ms == 0 then
    if rule.scope == 'tenant' then
      return redis.call('ZCARD', k.slots), 0
    end
    return redis.call('SCARD', scoped(k.slots, rule.scope, user, key)), 0
  end
  local starts = scoped(k.starts, rule.scope, user, key)
  local since = '(' .. whole(now - rule.window_ms)
  local current = redis.call('ZCOUNT', starts, since, '+inf')
  if current < rule.limit then
    return current, 0
  end
  local blocking = redis.call('ZRANGEBYSCORE', starts, since, '+inf', 'WITHSCORES', 'LIMIT', current - rule.limit, 1)
  return current, tonumber(blocking[2]) + rule.window_ms - now
end

-- Whether budgets leave this user something to spend; `known` keeps what was found out within one script.
local function may_spend(k, budgets, user, now, known)
  if known[user] == nil then
    known[user] = true
    for _, rule in ipairs(budgets) do
      if (rule.scope == 'tenant' or user ~= '') and measure(k, rule, user, '', now) >= rule.limit then
        known[user] = false
      end
    end
  end
  return known[user]
end

-- How many wait for a place, of those in the queue: one that a budget keeps takes nobody's. `prefix`: the beginning of the
-- keys of the tenant's conversations.
local function waiting_for_place(k, prefix, budgets, now)
  if not budgets or #budgets == 0 then
    return redis.call('ZCARD', k.queue)
  end
  local count, known = 0, {}
  for _, id in ipairs(redis.call('ZRANGE', k.queue, 0, -1)) do
    if may_spend(k, budgets, redis.call('HGET', prefix .. id, 'slot_user') or '', now, known) then
      count = count + 1
    end
  end
  return count
end

-- {'refused', name, limit, current, retry ms, scope, ms at which its month ends or 0} of the first rule that says no, or
-- nil. `waiting` others come first.
local function refusal(k, ask, now, waiting)
  for _, rule in ipairs(ask.rules) do
    local current, retry = measure(k, rule, ask.user, ask.key, now)
    if rule.window_ms == 0 and rule.scope == 'tenant' and not rule.unit then
      current = current + waiting
    end
    if current >= rule.limit then
      return {'refused', rule.name, whole(rule.limit), whole(current), whole(retry), rule.scope, whole(rule.ends_ms or 0)}
    end
  end
  return nil
end

local function count_in(k, conversation, id, user, key, now)
  redis.call('ZADD', k.slots, now, id)
  if user ~= '' then
    redis.call('SADD', k.slots .. ':user:' .. user, id)
  end
  if key ~= '' then
    redis.call('SADD', k.slots .. ':key:' .. key, id)
  end
  redis.call('HSET', conversation, 'slot_user', user, 'slot_key', key)
  redis.call('HDEL', conversation, 'queue_until_ms')
  redis.call('ZREM', k.queue, id)
end

local function take_slot(k, conversation, id, ask, now)
  count_in(k, conversation, id, ask.user, ask.key, now)
  for _, rule in ipairs(ask.rules) do
    if rule.window_ms > 0 then
      local starts = scoped(k.starts, rule.scope, ask.user, ask.key)
      redis.call('ZREMRANGEBYSCORE', starts, '-inf', whole(now - rule.window_ms))
      redis.call('ZADD', starts, now, id .. ':' .. whole(now))
      redis.call('PEXPIRE', starts, rule.window_ms)
    end
  end
end

-- Give up the slot, or the place in the queue. Nothing else of the conversation changes.
local function drop_slot(k, conversation, id)
  local of = redis.call('HMGET', conversation, 'slot_user', 'slot_key')
  if of[1] and of[1] ~= '' then
    redis.call('SREM', k.slots .. ':user:' .. of[1], id)
  end
  if of[2] and of[2] ~= '' then
    redis.call('SREM', k.slots .. ':key:' .. of[2], id)
  end
  local held = redis.call('ZREM', k.slots, id) + redis.call('ZREM', k.queue, id)
  redis.call('ZREM', k.evictions, id)
  redis.call('HDEL', conversation, 'slot_user', 'slot_key', 'asked', 'queue_until_ms')
  return held
end

-- {'held'}, {'queued', place, until ms, ms left} or {'none'}.
local function standing(k, conversation, id, now)
  if redis.call('ZSCORE', k.slots, id) then
    return {'held'}
  end
  local rank = redis.call('ZRANK', k.queue, id)
  if not rank then
    return {'none'}
  end
  local ends = tonumber(redis.call('HGET', conversation, 'queue_until_ms') or now)
  return {'queued', rank + 1, whole(ends), whole(math.max(0, ends - now))}
end

-- A slot for the conversation, or a place in the queue, or neither: {'held'}, {'admitted'}, {'queued', ...} or
-- {'refused', ...}. Asking again changes nothing.
local function ask_for(k, conversation, id, ask, now)
  local stands = standing(k, conversation, id, now)
  if stands[1] ~= 'none' then
    return stands
  end
  local waiting = waiting_for_place(k, string.sub(conversation, 1, #conversation - #id), ask.budgets, now)
  local no = refusal(k, ask, now, ask.queue == 0 and waiting or 0)
  if not no and not ask.behind and (waiting == 0 or ask.queue == 0) then
    take_slot(k, conversation, id, ask, now)
    return {'admitted'}
  end
  if ask.queue == 0 then
    return no
  end
  if waiting >= ask.queue then
    return {'refused', 'tenant.queue', ask.queue, waiting, '0', 'tenant'}
  end
  local last = redis.call('ZREVRANGE', k.queue, 0, 0, 'WITHSCORES')
  redis.call('ZADD', k.queue, math.max(now, last[2] and tonumber(last[2]) + 1 or 0), id)
  redis.call('HSET', conversation, 'slot_user', ask.user, 'slot_key', ask.key, 'queue_until_ms', whole(now + ask.wait_ms))
  return standing(k, conversation, id, now)
end
