-- include: audit.lua
-- Included by every script that changes what was asked for: the change goes into the tenant's journal in the same step,
-- and the audit log's entry of the request that asked for it.
-- The journal is the LAST of KEYS. An entry is the whole of one object as it is now, or its removal (no body), so that
-- the last entry of an object is all that has to be known of it.
-- The LAST of ARGV, taken off here, is what audit.lua wants, or empty; the log is kept beside the journal.

local AUDIT = table.remove(ARGV)
-- What a request changes on its way, and not what it asked for.
local UNTOLD = {operation = true, data_key = true, delivered = true, used = true, spent = true}

local function audit_change(kind, id)
  if AUDIT and AUDIT ~= '' and not UNTOLD[kind] then
    local stream = KEYS[#KEYS]
    local tail = ',' .. cjson.encode(kind) .. ',' .. cjson.encode(id) .. ']'
    audit_keep(stream .. ':audit', stream .. ':audit:index', stream, AUDIT, tail)
  end
end

local function journal(kind, id, body)
  redis.call('XADD', KEYS[#KEYS], '*', 'kind', kind, 'id', id, 'body', body)
  audit_change(kind, id)
end

local function unjournal(kind, id)
  redis.call('XADD', KEYS[#KEYS], '*', 'kind', kind, 'id', id)
  audit_change(kind, id)
end

local function journal_conversation(conversation, id)
  local stored = redis.call('HMGET', conversation, 'intent', 'phase', 'runtime', 'record', 'version', 'fence')
  journal('conversation', id, cjson.encode(stored))
end
