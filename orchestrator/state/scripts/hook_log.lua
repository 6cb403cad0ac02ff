-- Write a line into the delivery log of an endpoint.
-- KEYS: endpoints, the beginning of the keys of endpoints
-- ARGV: endpoint, lines that are kept, then the fields of the line
-- Answers the id of the line, or '' when there is no such endpoint.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return ''
end
return redis.call('XADD', KEYS[2] .. ARGV[1] .. ':log', 'MAXLEN', ARGV[2], '*', unpack(ARGV, 3))
