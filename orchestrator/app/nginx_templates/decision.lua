-- Asks the orchestrator where a request goes, keeps what it says for a moment, and connects there. Loaded once per nginx;
-- the decisions that are kept are in memory that the workers share: the keys of it are digests, nothing is on a disk.

local balancer = require "ngx.balancer"
local decisions = ngx.shared.decisions
local head = dofile("@folder@/head.lua")
local match, sha1, now = string.match, ngx.sha1_bin, ngx.now

local SOCKET = "unix:@run@/decision.sock"
local REPORT_SECONDS = 2 -- well below any idle time
local KEEP_SECONDS, STALE_SECONDS = @keep_seconds@, @stale_seconds@

local nestor = { look_closely = head.look_closely }
local under_way = {} -- of this worker: how many requests to a runtime are not over
local taken = {} -- of this worker: what it has read of a decision that is kept, no longer than that is; emptied by `report`

-- One line for one line; nil when nobody answers. A connection that was used before may have died unnoticed.
local function ask(line)
  for _ = 1, 2 do
    local socket = ngx.socket.tcp()
    socket:settimeouts(@connect_ms@, @connect_ms@, @decide_ms@)
    if not socket:connect(SOCKET) then return nil end
    local used = socket:getreusedtimes() > 0
    local answer = socket:send(line) and socket:receive("*l")
    if answer then
      socket:setkeepalive(60000, 64)
      return answer
    end
    if not used then return nil end
  end
end

local function read(decision)
  local host, port, generation, runtime, tenant, inner = match(decision, "^(%S+) (%d+) (%d+) (%S+) (%S+) (%S+)$")
  return {
    host = host, port = tonumber(port), generation = generation, runtime = runtime, tenant = tenant, inner = inner,
    pool = string.sub(generation, -1), last = 0,
  }
end

-- What is counted is counted by the name that the decision says: in a target a runtime has many.
local function use(place, var)
  local runtime = place.runtime
  ngx.ctx.place = place
  var.nestor_generation, var.nestor_inner, var.nestor_pool = place.generation, place.inner, place.pool
  var.nestor_counted, var.nestor_tenant = runtime, place.tenant
  under_way[runtime] = (under_way[runtime] or 0) + 1
end

-- The log phase of every request.
function nestor.over()
  local runtime = ngx.var.nestor_counted
  if runtime and runtime ~= "" then
    local left = (under_way[runtime] or 1) - 1
    under_way[runtime] = left > 0 and left or nil
  end
end

-- Requests that take long are use for as long as they take; also when nobody asks for a decision meanwhile.
local function report(premature)
  if premature then return end
  taken = {}
  local names = {}
  for name in pairs(under_way) do names[#names + 1] = name end
  if #names > 0 then ask("= " .. table.concat(names, " ") .. "\n") end
end

function nestor.begin()
  ngx.timer.every(REPORT_SECONDS, report)
end

-- The rewrite phase of a request that nginx could take, before connections are counted. What the orchestrator does not
-- let it take goes there instead.
function nestor.decide()
  head.look()
  local var = ngx.var
  local question = var.nestor_runtime .. " " .. var.nestor_kind .. " " .. var.nestor_key
  local mine = taken[question]
  if mine and now() < mine.last then return use(mine, var) end
  local kept, since, old, name
  if KEEP_SECONDS > 0 then
    name = sha1(question)
    kept, since, old = decisions:get_stale(name)
    if kept and not old then
      mine = read(kept)
      mine.last = now() + (decisions:ttl(name) or 0)
      taken[question] = mine
      return use(mine, var)
    end
  end
  local answer = ask(var.remote_addr .. " " .. question .. "\n")
  if answer and answer ~= "no" then
    if name then decisions:set(name, answer, KEEP_SECONDS, ngx.time()) end
    return use(read(answer), var)
  end
  if not answer and kept and ngx.time() - since <= STALE_SECONDS then return use(read(kept), var) end
  if answer and name then decisions:delete(name) end
  return ngx.exec("@orchestrator")
end

-- A connection to where the decision said; one that is open is used again.
function nestor.connect()
  local place = ngx.ctx.place
  balancer.set_current_peer(place.host, place.port)
end

-- What a runtime nominates in `Connection` ends here (RFC 9110, 7.6.1).
function nestor.clean()
  local var = ngx.var
  if var.upstream_http_transfer_encoding and var.upstream_http_content_length then
    return ngx.exit(502) -- two readings of where it ends
  end
  local nominated = var.upstream_http_connection
  if nominated then
    for token in string.gmatch(string.lower(nominated), "[^,%s]+") do
      if token ~= "close" and token ~= "keep-alive" and token ~= "upgrade" then ngx.header[token] = nil end
    end
  end
end

-- The route is in doubt: the orchestrator is told, and what nginx keeps is forgotten. `body` is what the client gets.
function nestor.failed(told, status, body, retry_after)
  local var = ngx.var
  local runtime = var.nestor_runtime
  if told then
    local question = runtime .. " " .. var.nestor_kind .. " " .. var.nestor_key
    taken[question] = nil
    if KEEP_SECONDS > 0 then decisions:delete(sha1(question)) end
    ask("! " .. told .. " " .. runtime .. "\n")
  end
  ngx.status = status
  ngx.header["Content-Type"] = "application/problem+json"
  ngx.header["Content-Length"] = #body
  ngx.header["Retry-After"] = retry_after
  ngx.print(body)
end

return nestor
