-- Included, after lease.lua, journal.lua and outbox.lua, by every script that learns what a conversation used, or what its
-- tenant may spend (`domain/spending.py`). Runtimes tell sums: a conversation's only grow, and what they grew by is spent
-- in the present month by its tenant and its user, in the same step. So what is told twice counts once.
-- `s` holds: tenant (the key of its record), ledgers (the beginning of the keys of its ledgers), wanted and prefix (as
-- outbox.lua has them), at (of JSON: month, oldest, ttl_ms, tenant, resets_at, and head, neck, tail: what hooks are told
-- before the id, between id and data, and behind the data).
-- A ledger <ledgers><month>, of a user <ledgers><month>:user:<id> (hash with an expiry): micros, prompt, completion, and
-- told:<unit>:<limit>:<percent> for each threshold that was told.
-- In the conversation's hash: used_micros, used_prompt, used_completion. One without them was made by a version that
-- counted nothing: nobody knows in which month it used what it tells first, so that is not spent.

local USED = {'micros', 'prompt', 'completion'}

local function digits(number)
  return string.format('%.0f', number)
end

local function ledger_of(s, user)
  local own = s.ledgers .. s.at.month
  return user == '' and own or own .. ':user:' .. user
end

-- What the tenant may spend; nil: as much as it likes, or nobody can read it.
local function budget_of(s)
  local sound, tenant = pcall(cjson.decode, redis.call('GET', s.tenant) or '')
  if sound and type(tenant) == 'table' and type(tenant.budget) == 'table' then
    return tenant.budget
  end
  return nil
end

local function amount_of(unit, number)
  return unit == 'usd' and string.format('%.6f', number / 1000000) or digits(number)
end

-- The id says which threshold of which month it is: told again after a loss, it is known again.
local function threshold_text(s, user, unit, mark, percent, limit, spent)
  local hash = redis.sha1hex(table.concat({s.at.tenant, user, s.at.month, mark}, '|'))
  local ends = {8, 12, 16, 20, 32}
  local parts, from = {}, 1
  for place, to in ipairs(ends) do
    parts[place] = string.sub(hash, from, to)
    from = to + 1
  end
  local data = {
    '{"rule":"', user == '' and 'tenant' or 'user', '.monthly_', unit, '","unit":"', unit,
    '","threshold_percent":', digits(percent), ',"limit":', amount_of(unit, limit), ',"spent":', amount_of(unit, spent),
    ',"month":"', s.at.month, '","resets_at":"', s.at.resets_at,
    '","user_id":', user == '' and 'null' or '"' .. user .. '"', '}',
  }
  return s.at.head .. 'evt_' .. table.concat(parts, '-') .. s.at.neck .. table.concat(data) .. s.at.tail
end

-- Tell each threshold that is reached and was not told; of the tenant, or one of its users. Answers how many.
local function tell_reached(s, budget, user)
  local ledger, told = ledger_of(s, user), 0
  local own = redis.call('HMGET', ledger, 'micros', 'prompt', 'completion')
  local spent = {usd = tonumber(own[1] or 0), tokens = tonumber(own[2] or 0) + tonumber(own[3] or 0)}
  for _, unit in ipairs({'usd', 'tokens'}) do
    local limit = tonumber(budget[user == '' and unit or unit .. '_per_user']) or 0
    for _, percent in ipairs(limit > 0 and budget.thresholds or {}) do
      local mark = table.concat({'told', unit, digits(limit), digits(percent)}, ':')
      if spent[unit] * 100 >= limit * percent and redis.call('HSETNX', ledger, mark, 1) == 1 then
        local text = threshold_text(s, user, unit, mark, percent, limit, spent[unit])
        publish(s, '-', cjson.encode({{'budget.threshold_reached', text}}))
        told = told + 1
      end
    end
  end
  return told
end

local function journal_ledger(s, user)
  journal('spent', user .. '|' .. s.at.month, cjson.encode(redis.call('HGETALL', ledger_of(s, user))))
end

-- The conversation has used so much in all: {micros, prompt tokens, completion tokens}. Less than is known changes nothing.
local function charge(s, conversation, id, totals)
  local known = redis.call('HMGET', conversation, 'used_micros', 'used_prompt', 'used_completion', 'user')
  local present, more, grew = {}, {}, false
  for place, total in ipairs(totals) do
    local before = tonumber(known[place] or 0)
    present[place] = digits(math.max(before, total))
    more[place] = math.max(0, total - before)
    grew = grew or more[place] > 0
  end
  if known[1] and not grew then
    return
  end
  redis.call('HSET', conversation, 'used_micros', present[1], 'used_prompt', present[2], 'used_completion', present[3])
  journal('used', id, '[' .. table.concat(present, ',') .. ']')
  if not known[1] then
    return
  end
  local budget = budget_of(s)
  for _, user in ipairs((known[4] or '') == '' and {''} or {'', known[4]}) do
    local ledger = ledger_of(s, user)
    if redis.call('EXISTS', ledger) == 0 then
      unjournal('spent', user .. '|' .. s.at.oldest)
    end
    for place, name in ipairs(USED) do
      redis.call('HINCRBY', ledger, name, digits(more[place]))
    end
    redis.call('PEXPIRE', ledger, s.at.ttl_ms)
    if budget then
      tell_reached(s, budget, user)
    end
    journal_ledger(s, user)
  end
end
