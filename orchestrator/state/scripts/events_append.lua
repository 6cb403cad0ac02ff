-- include: lease.lua
-- include: journal.lua
-- include: outbox.lua
-- include: spending.lua
-- Append the events that come next: drop those already there, stop at a gap.
-- A message of the user that is kept is noted in the inbox as taken up, with its number here, and told to hooks. What an
-- event that is kept says of the conversation's use is charged.
-- KEYS: conversation, events, inbox, wanted hooks, the beginning of the keys of hooks, tenant, the beginning of the keys
--       of ledgers, journal
-- ARGV: conversation id, `at` (spending.lua; '': no event says anything of use), then for each event its sequence, id,
--       payload, if it is a message of the user what hooks are told of it (else nothing), the first sequence for which
--       it stands (its own; of the mark of a gap the gap's), and '<micros>,<prompt tokens>,<completion tokens>' that the
--       conversation has used when it says so (else nothing)
-- Answers the last sequence kept, or -1 when there is no such conversation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local last
if newest[1] then
  last = tonumber(string.match(newest[1][1], '^(%d+)-'))
else -- nothing is held, or no more: the log ends where the archive does
  last = math.max(0, tonumber(redis.call('HGET', KEYS[1], 'log_archived') or '0'))
end
local added, used = 0, nil
for position = 3, #ARGV, 6 do
  local sequence, first = tonumber(ARGV[position]), tonumber(ARGV[position + 4])
  if first == last + 1 then
    local fields = {'id', ARGV[position + 1], 'payload', ARGV[position + 2]}
    if first < sequence then
      fields[5], fields[6] = 'first', ARGV[position + 4]
    end
    redis.call('XADD', KEYS[2], ARGV[position] .. '-0', unpack(fields))
    added = added + #ARGV[position + 2]
    if ARGV[position + 3] ~= '' then
      redis.call('HSET', KEYS[3], 'accepted:' .. ARGV[position + 1], ARGV[position])
      publish({wanted = KEYS[4], prefix = KEYS[5]}, ARGV[1], ARGV[position + 3])
    end
    if ARGV[position + 5] ~= '' then
      used = ARGV[position + 5]
    end
    last = sequence
  elseif first > last then
    break
  end
end
if added > 0 then
  redis.call('HINCRBY', KEYS[1], 'log_bytes', added)
end
if used then
  local micros, prompt, completion = string.match(used, '^(%d+),(%d+),(%d+)$')
  local s = {tenant = KEYS[6], ledgers = KEYS[7], wanted = KEYS[4], prefix = KEYS[5], at = cjson.decode(ARGV[2])}
  charge(s, KEYS[1], ARGV[1], {tonumber(micros), tonumber(prompt), tonumber(completion)})
end
return last
