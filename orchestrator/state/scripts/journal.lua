-- Included by every script that changes what was asked for: the change goes into the tenant's journal in the same step.
-- The journal is the LAST of KEYS. An entry is the whole of one object as it is now, or its removal (no body), so that
-- the last entry of an object is all that has to be known of it.

local function journal(kind, id, body)
  redis.call('XADD', KEYS[#KEYS], '*', 'kind', kind, 'id', id, 'body', body)
end

local function unjournal(kind, id)
  redis.call('XADD', KEYS[#KEYS], '*', 'kind', kind, 'id', id)
end

local function journal_conversation(conversation, id)
  local stored = redis.call('HMGET', conversation, 'intent', 'phase', 'runtime', 'record', 'version', 'fence')
  journal('conversation', id, cjson.encode(stored))
end
