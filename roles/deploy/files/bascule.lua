-- Shares HAProxy's traffic between backends as Bascule says, see docs/load-balancers.md.
--
--     global
--         setenv BASCULE_MAP /etc/haproxy/bascule.map
--         lua-load-per-thread /etc/haproxy/bascule.lua
--
-- The map has one entry for each place in the configuration that asks ("http-request lua.bascule
-- KEY"). Its value is records with '>' between them, and fields with ',' between them:
--     a,BACKEND,POINTS          share in hundredths of a percent, in the order of hash values
--     h,NAME,VALUE,BACKEND      a rule by header; the first rule that matches wins
--     c,NAME,VALUE,BACKEND      a rule by cookie
--     s,h|c,NAME,SALT,TTL,REST  sticky users; TTL is the seconds of a cookie that is given, or empty
-- What belongs to a request is left in variables: txn.bascule_backend, txn.bascule_cookie and, for
-- the response, txn.bascule_bucket.

local map = Map.new(os.getenv("BASCULE_MAP") or "/etc/haproxy/bascule.map", Map._str)

local bxor = bit and bit.bxor or load("return function(a, b) return a ~ b end")()
local floor = math.floor
local function xor(a, b) return bxor(a, b) % 4294967296 end
local function shift(a, n) return floor(a / 2 ^ n) end
local function mul(a, b)
  local low, high = a % 65536, floor(a / 65536)
  return (low * b + (high * b) % 65536 * 65536) % 4294967296
end
local function murmur(text)
  local m, size = 1540483477, #text
  local h, at = size % 4294967296, 1
  while size >= 4 do
    local a, b, c, d = text:byte(at, at + 3)
    local k = mul(a + b * 256 + c * 65536 + d * 16777216, m)
    h = xor(mul(h, m), mul(xor(k, shift(k, 24)), m))
    at, size = at + 4, size - 4
  end
  if size > 0 then
    local a, b, c = text:byte(at, at + size - 1)
    h = mul(xor(h, a + (b or 0) * 256 + (c or 0) * 65536), m)
  end
  h = mul(xor(h, shift(h, 13)), m)
  return floor(xor(h, shift(h, 15)))
end

local function fields(text, separator)
  local found, at = {}, 1
  while true do
    local stop = text:find(separator, at, true)
    found[#found + 1] = text:sub(at, (stop or 0) - 1)
    if not stop then return found end
    at = stop + 1
  end
end

local function parse(text)
  local routing = {arms = {}, rules = {}}
  local total = 0
  local border = 0
  for _, record in ipairs(fields(text, ">")) do
    local part = fields(record, ",")
    if part[1] == "a" and part[3] ~= "0" then
      local points = tonumber(part[3])
      total = total + points
      border = border + points * 4294967295 // 10000
      routing.arms[#routing.arms + 1] = {backend = part[2], total = total, border = border}
    elseif part[1] == "h" or part[1] == "c" then
      routing.rules[#routing.rules + 1] = part
    elseif part[1] == "s" then
      routing.sticky = {cookie = part[2] == "c", name = part[3], salt = part[4], ttl = part[5]}
    end
  end
  routing.arms[#routing.arms].border = 4294967296
  return routing
end

local parsed = {}

local function routing_of(key)
  local text = map:lookup(key)
  if not text then return nil end
  local known = parsed[key]
  if not known or known.text ~= text then
    known = parse(text)
    known.text = text
    parsed[key] = known
  end
  return known
end

local function named(txn, cookie, name)
  if cookie then return txn.f:req_cook(name) end
  return txn.f:req_fhdr(name)
end

local function identity(txn, sticky)
  local id = named(txn, sticky.cookie, sticky.name)
  if id and id ~= "" then return id end
  if sticky.ttl == "" then return nil end
  id = txn.f:uuid()
  txn:set_var("txn.bascule_cookie", sticky.name .. "=" .. id .. "; Max-Age=" .. sticky.ttl ..
    "; Path=/; HttpOnly; SameSite=Lax")
  return id
end

local function backend_of(txn, routing)
  for _, rule in ipairs(routing.rules) do
    if named(txn, rule[1] == "c", rule[2]) == rule[3] then return rule[4] end
  end
  local id = routing.sticky and identity(txn, routing.sticky)
  if id then
    local hash = murmur(routing.sticky.salt .. ":" .. id)
    for _, arm in ipairs(routing.arms) do
      if hash < arm.border then return arm.backend end
    end
  end
  local drawn = txn.f:rand(10000)
  for _, arm in ipairs(routing.arms) do
    if drawn < arm.total then return arm.backend end
  end
end

local function microseconds()
  local now = core.now()
  return now.sec * 1000000 + now.usec
end

core.register_action("bascule", {"http-req"}, function(txn, key)
  local routing = routing_of(key)
  if not routing then return end
  txn:set_var("txn.bascule_backend", backend_of(txn, routing))
  txn:set_var("txn.bascule_began", microseconds())
end, 1)

core.register_action("bascule_done", {"http-res"}, function(txn)
  local backend, began = txn:get_var("txn.bascule_backend"), txn:get_var("txn.bascule_began")
  if not began then return end
  local took = math.max(1, microseconds() - began)
  -- The bucket's upper bound is 1.1 to the power of its number, in microseconds.
  txn:set_var("txn.bascule_bucket", backend .. ":" .. math.ceil(math.log(took, 1.1)))
end)
