-- Included by every script that ends operations, behind lease.lua and journal.lua.

-- End one; the first end counts. Answers 1, or 0 when there is no such operation.
local function end_operation(operation, running, id, state, kept_ms, failure)
  local present = redis.call('HGET', operation, 'state')
  if not present then
    return 0
  end
  if present == 'running' then
    redis.call('HSET', operation, 'state', state, 'updated_ms', now_ms(), 'failure', failure)
    redis.call('PEXPIRE', operation, kept_ms)
    redis.call('SREM', running, id)
    unjournal('operation', id)
  end
  return 1
end
