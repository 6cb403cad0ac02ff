-- Asks the orchestrator where a request goes, keeps what it says for a moment, and connects there. Loaded once per nginx;
-- the decisions that are kept are in memory that the workers share: the keys of it are digests, nothing is on a disk.

local balancer = require "ngx.balancer"
local decisions = ngx.shared.decisions
local match, sha1 = string.match, ngx.sha1_bin

local SOCKET = "unix:@run@/decision.sock"
local REPORT_SECONDS = 2 -- well below any idle time
local KEEP_SECONDS, STALE_SECONDS = @keep_seconds@, @stale_seconds@

local nestor = {}
local under_way = {} -- of this worker: how many requests to a runtime are not over

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

local function use(decision, runtime)
  local host, port, generation, inner = match(decision, "^(%S+) (%d+) (%d+) (%S+)$")
  local ctx, var = ngx.ctx, ngx.var
  ctx.host, ctx.port = host, tonumber(port)
  var.nestor_generation, var.nestor_inner, var.nestor_counted = generation, inner, runtime
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
  local names = {}
  for name in pairs(under_way) do names[#names + 1] = name end
  if #names > 0 then ask("= " .. table.concat(names, " ") .. "\n") end
end

function nestor.begin()
  ngx.timer.every(REPORT_SECONDS, report)
end

-- The access phase of a request that nginx could take. What the orchestrator does not let it take goes there instead.
function nestor.decide()
  local var = ngx.var
  local runtime = var.nestor_runtime
  local question = runtime .. " " .. var.nestor_kind .. " " .. var.nestor_key
  local kept, since, old, name
  if KEEP_SECONDS > 0 then
    name = sha1(question)
    kept, since, old = decisions:get_stale(name)
    if kept and not old then return use(kept, runtime) end
  end
  local answer = ask(var.remote_addr .. " " .. question .. "\n")
  if answer and answer ~= "no" then
    if name then decisions:set(name, answer, KEEP_SECONDS, ngx.time()) end
    return use(answer, runtime)
  end
  if not answer and kept and ngx.time() - since <= STALE_SECONDS then return use(kept, runtime) end
  if answer and name then decisions:delete(name) end
  return ngx.exec("@orchestrator")
end

-- A connection to where the decision said; one that is open is used again.
function nestor.connect()
  balancer.set_current_peer(ngx.ctx.host, ngx.ctx.port)
end

-- What a runtime nominates in `Connection` ends here (RFC 9110, 7.6.1).
function nestor.clean()
  local nominated = ngx.var.upstream_http_connection
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
    if KEEP_SECONDS > 0 then decisions:delete(sha1(runtime .. " " .. var.nestor_kind .. " " .. var.nestor_key)) end
    ask("! " .. told .. " " .. runtime .. "\n")
  end
  ngx.status = status
  ngx.header["Content-Type"] = "application/problem+json"
  ngx.header["Content-Length"] = #body
  ngx.header["Retry-After"] = retry_after
  ngx.print(body)
end

return nestor
