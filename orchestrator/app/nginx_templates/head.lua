-- Looks at the head of a request byte by byte, because nginx reads some heads in another way than a server before it
-- might: what has two readings is refused, and its connection closed. Loaded once per nginx, called for each request.
--
-- nginx shows a head with a line feed in the place of the first space behind a value, so such a line feed means nothing;
-- and of one space and a line feed at the end of a line it shows what it shows of CR LF, so those cannot be told apart.

local find, lower = string.find, string.lower
local raw_header, matches = ngx.req.raw_header, ngx.re.find
local MOST_BYTES, MOST_LINES = @head_bytes@, @header_count@
local CREDENTIALS = { "x-session-api-key", "x-api-key", "x-access-token", "x-init-api-key" } -- nginx knows the others
local PLAIN = [[\A[^\r\n]*+\r\n(?:[A-Za-z0-9-]++:[^\x00-\x08\x0a-\x1f\x7f]*+(?:\n *+)?\r\n)*+\r\n\z]]
local LINE = "^[%w!#$%%&'*+.^_`|~-]+:[^%z\1-\8\10-\31\127]*\n? *\r\n"

local function feeds(raw)
  local at, found = 0, -1
  repeat
    at, found = find(raw, "\n", at + 1, true), found + 1
  until not at
  return found
end

-- How many lines a head has, one by one. nil if one of them is malformed.
local function count(raw)
  local lines, _, at = -1, find(raw, "^[^\r\n]*\r\n")
  local ended = at
  while ended do
    lines, at = lines + 1, ended
    _, ended = find(raw, LINE, at + 1)
  end
  if at and find(raw, "\r\n", at + 1, true) == at + 1 and #raw == at + 2 then return lines end
end

local head = {}

-- Ends the request if its head has to be refused.
function head.look()
  local raw = raw_header()
  if #raw > MOST_BYTES and #raw - find(raw, "\n", 1, true) > MOST_BYTES then return ngx.exec("/_nestor/large") end
  if not matches(raw, PLAIN, "jo") or feeds(raw) > MOST_LINES + 2 then
    local lines = count(raw)
    if not lines then return ngx.exec("/_nestor/malformed") end
    if lines > MOST_LINES then return ngx.exec("/_nestor/large") end
  end
  local small = lower(raw)
  local _, first = find(small, "\nx-session-api-key:", 1, true)
  if first and find(small, "\nx-session-api-key:", first, true) then return ngx.exec("/_nestor/malformed") end
end

-- The rewrite phase of a request that is the orchestrator's. What the orchestrator would refuse for having two readings
-- is refused here: only nginx can close the connection behind it.
function head.look_closely()
  head.look()
  local headers, var = ngx.req.get_headers(0), ngx.var
  for _, name in ipairs(CREDENTIALS) do
    if type(headers[name]) == "table" then return ngx.exec("/_nestor/malformed") end
  end
  if var.nestor_upgrade ~= "" and find(lower(var.http_connection or ""), "upgrade", 1, true) then
    local framed = (var.http_content_length or "0") ~= "0" or var.http_transfer_encoding
    if framed or ngx.req.get_method() ~= "GET" then return ngx.exec("/_nestor/malformed") end
  end
end

return head
