-- One decision over all limits of one subject, or corrections of what was decided before.
-- Everything happens on Redis' own clock, in microseconds; what comes from outside is an age.
--
-- KEYS 1 the marker   2 requests, exact: ZSET operation -> time
--      3 requests in sub-windows: HASH end of the sub-window -> number
--      4 tokens in sub-windows: HASH, the same
--      5 concurrent: ZSET operation -> end of its lease
--      6.. one record per correction, in order; for "take" and "peek" the asker's own record last
-- ARGV 1 "take", "peek" or "put"   2 the marker's value that the caller trusts
--      3 lease, in microseconds    4 "replace" to forget all windows first, else ""
--      5 number of corrections, then eight words for each
--      then for "take" and "peek": operation, requests, window, tokens, window, ask, least, concurrent
--      then for "put": window and number of request pieces, an age and an amount for each; the same for tokens
-- Both hashes also hold L, the time of the latest, and N, the number of what was dropped from them.

local mode, trusted, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local R, B, T, C = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local EXACT, PIECES, MARGIN = 1000, 64, 1000000

if mode ~= 'put' and redis.call('GET', KEYS[1]) ~= trusted then
  return {'cold'}
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- Lua prints large numbers with an exponent; Redis wants digits.
local function digits(n) return string.format('%.0f', n) end

-- keep sees to it that a key lives a window longer, and a little more for the slowest reader.
local function keep(key, window)
  local ms = math.ceil((window + MARGIN) / 1000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, digits(ms)) end
end

-- A record is "marker|end of the request's sub-window|end of the tokens' sub-window|tokens". One of an
-- earlier marker speaks of windows that were replaced since.
local function load(key)
  local text = redis.call('GET', key)
  if not text then return nil end
  local marker, rend, tend, tokens = string.match(text, '^(.*)|(%d+)|(%d+)|(%d+)$')
  if marker ~= trusted then return nil end
  return {rend = tonumber(rend), tend = tonumber(tend), tokens = tonumber(tokens)}
end

local function save(key, rec, window)
  local text = trusted .. '|' .. digits(rec.rend) .. '|' .. digits(rec.tend) .. '|' .. digits(rec.tokens)
  redis.call('SET', key, text, 'PX', digits(math.ceil((window + MARGIN) / 1000)))
end

-- ttl is how long the record of an operation is wanted: its tokens may be corrected while they
-- count, which is to the end of their sub-window; a request alone can only be asked again or given
-- back, and that is soon.
local function ttl(rwindow, twindow)
  return math.max(math.min(rwindow, 119000000), twindow + math.floor(twindow / PIECES))
end

local function ending(time, window)
  local width = math.max(1, math.floor(window / PIECES))
  return math.floor(time / width) * width + width - 1
end

-- change adds to a sub-window that is there; a new one only ever grows from nothing.
local function change(key, at, by, window)
  if by > 0 or redis.call('HEXISTS', key, digits(at)) == 1 then
    if redis.call('HINCRBY', key, digits(at), digits(by)) <= 0 then redis.call('HDEL', key, digits(at)) end
    keep(key, window)
  end
end

local function put(key, at)
  local id, age, state = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local max, rwindow = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local tokens, twindow, hold = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), ARGV[at + 7]
  local bucketed = max > EXACT
  local rec = nil
  if bucketed or tokens >= 0 then rec = load(key) end
  if state == 'gone' then
    redis.call('ZREM', R, id)
    redis.call('ZREM', C, id)
    if rec then
      if rec.rend > 0 then change(B, rec.rend, -1, rwindow) end
      if rec.tend > 0 and rec.tokens > 0 then change(T, rec.tend, -rec.tokens, twindow) end
      redis.call('DEL', key)
    end
    return
  end
  local known = rec or {rend = 0, tend = 0, tokens = 0}
  local happened = now - age
  if age < rwindow then
    if bucketed then
      if known.rend == 0 then
        known.rend = ending(happened, rwindow)
        change(B, known.rend, 1, rwindow)
      end
    else
      redis.call('ZADD', R, 'NX', digits(happened), id)
      keep(R, rwindow)
    end
  end
  -- What was held counts until its sub-window leaves, a little after the window of the request.
  if tokens >= 0 and (age < twindow or known.tend > now - twindow) then
    if known.tend == 0 then known.tend = ending(happened, twindow) end
    if tokens ~= known.tokens then change(T, known.tend, tokens - known.tokens, twindow) end
    known.tokens = tokens
  end
  if bucketed or tokens >= 0 then save(key, known, ttl(rwindow, math.max(0, tokens >= 0 and twindow or 0))) end
  if hold == '1' then
    redis.call('ZADD', C, digits(now + lease), id)
    keep(C, lease)
  elseif hold == '0' then
    redis.call('ZREM', C, id)
  end
end

if ARGV[4] == 'replace' then redis.call('DEL', R, B, T) end
local corrections = tonumber(ARGV[5])
for i = 0, corrections - 1 do put(KEYS[6 + i], 6 + 8 * i) end
local at = 6 + 8 * corrections

if mode == 'put' then
  for _, key in ipairs({B, T}) do
    local window, n = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    for i = 1, n do
      local age, amount = tonumber(ARGV[at + 2 * i]), tonumber(ARGV[at + 2 * i + 1])
      if age < window and amount > 0 then change(key, now - age, amount, window) end
    end
    at = at + 2 + 2 * n
  end
  return {'ok'}
end

local own = KEYS[6 + corrections]
local id = ARGV[at]
local rmax, rwindow = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
local tmax, twindow = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
local ask, least, cmax = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])

-- The clock may have jumped back. What seems to happen in the future happened by now: dated so, it
-- locks nobody out for the length of the jump.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', R, '(' .. digits(now), '+inf')) do
  redis.call('ZADD', R, digits(now), member)
end
if cmax > 0 then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', C, '(' .. digits(now + lease), '+inf')) do
    redis.call('ZADD', C, digits(now + lease), member)
  end
end

-- read lists a hash as {time, amount}, oldest first, with what counts in the window and what does not.
local function read(key, window)
  local found = {used = 0, list = {}, gone = {}, goneSum = 0, goneAt = 0}
  local flat = redis.call('HGETALL', key)
  local lastAt, lastN = 0, 0
  local latest = ending(now, window)
  for i = 1, #flat, 2 do
    local name, n = flat[i], tonumber(flat[i + 1])
    if name == 'L' then
      lastAt = n
    elseif name == 'N' then
      lastN = n
    else
      local time = tonumber(name)
      if time > latest then
        redis.call('HDEL', key, name)
        redis.call('HINCRBY', key, digits(latest), digits(n))
        time = latest
      end
      if time > now - window then
        found.used = found.used + n
        found.list[#found.list + 1] = {time, n}
      else
        found.gone[#found.gone + 1] = name
        found.goneSum = found.goneSum + n
        found.goneAt = math.max(found.goneAt, time)
      end
    end
  end
  lastAt = math.min(lastAt, now)
  found.goneAt = math.max(found.goneAt, lastAt)
  if lastN > 0 and lastAt > now - window then
    found.used = found.used + lastN
    found.list[#found.list + 1] = {lastAt, lastN}
  end
  return found
end

-- waits is the time until k of a list have left the window, the oldest first; and until all have.
local function waits(list, k, window)
  table.sort(list, function(a, b) return a[1] < b[1] end)
  local wait, reset = 0, 0
  for _, p in ipairs(list) do
    if k > 0 then
      k = k - p[2]
      wait = p[1] + window - now
    end
    reset = p[1] + window - now
  end
  return wait, reset
end

local since = '(' .. digits(now - rwindow)
local b = {used = 0, list = {}, gone = {}, goneSum = 0, goneAt = 0}
if redis.call('EXISTS', B) == 1 then b = read(B, rwindow) end
local exact = redis.call('ZCOUNT', R, since, '+inf')
local rused = exact + b.used
local rwait, rreset = 0, 0
if #b.list == 0 then
  if exact > 0 then
    if rused >= rmax and rmax > 0 then
      rwait = redis.call('ZRANGEBYSCORE', R, since, '+inf', 'WITHSCORES', 'LIMIT', rused - rmax, 1)[2] + rwindow - now
    end
    rreset = redis.call('ZRANGE', R, -1, -1, 'WITHSCORES')[2] + rwindow - now
  end
else
  local flat = redis.call('ZRANGEBYSCORE', R, since, '+inf', 'WITHSCORES')
  for i = 2, #flat, 2 do b.list[#b.list + 1] = {tonumber(flat[i]), 1} end
  rwait, rreset = waits(b.list, rused - rmax + 1, rwindow)
end

local t, tused, twait, treset, granted = nil, 0, 0, 0, 0
if tmax > 0 then
  t = read(T, twindow)
  tused = t.used
  granted = math.max(0, math.min(ask, tmax - tused))
  twait, treset = waits(t.list, tused + least - tmax, twindow)
end

local cused = 0
if cmax > 0 then cused = redis.call('ZCOUNT', C, '(' .. digits(now), '+inf') end

local rec = nil
if rmax > EXACT or tmax > 0 then rec = load(own) end
local before = rec ~= nil or redis.call('ZSCORE', R, id) ~= false
local rok, tok, cok = rused < rmax, tmax == 0 or granted >= least, cmax == 0 or cused < cmax
local taken = 0

if mode == 'take' and before then
  rok, tok, cok, taken = true, true, true, 1
  granted = rec and rec.tokens or 0
elseif mode == 'take' and rok and tok and cok then
  taken = 1
  local made = {rend = 0, tend = 0, tokens = 0}
  if rmax > EXACT then
    made.rend = ending(now, rwindow)
    redis.call('HINCRBY', B, digits(made.rend), 1)
    rreset = math.max(rreset, made.rend + rwindow - now)
  else
    local left = redis.call('ZCOUNT', R, '-inf', digits(now - rwindow))
    if left > 0 then
      local last = redis.call('ZRANGE', R, left - 1, left - 1, 'WITHSCORES')[2]
      redis.call('ZREMRANGEBYSCORE', R, '-inf', digits(now - rwindow))
      b.goneSum, b.goneAt = b.goneSum + left, math.max(b.goneAt, tonumber(last))
    end
    redis.call('ZADD', R, digits(now), id)
    keep(R, rwindow)
    rreset = rwindow
  end
  if #b.gone > 0 then redis.call('HDEL', B, unpack(b.gone)) end
  if b.goneSum > 0 then
    redis.call('HINCRBY', B, 'N', digits(b.goneSum))
    redis.call('HSET', B, 'L', digits(b.goneAt))
  end
  if rmax > EXACT or b.goneSum > 0 then keep(B, rwindow) end
  rused = rused + 1
  if tmax > 0 then
    made.tend, made.tokens = ending(now, twindow), granted
    if granted > 0 then
      redis.call('HINCRBY', T, digits(made.tend), digits(granted))
      treset = math.max(treset, made.tend + twindow - now)
    end
    if #t.gone > 0 then
      redis.call('HDEL', T, unpack(t.gone))
      redis.call('HINCRBY', T, 'N', digits(t.goneSum))
      redis.call('HSET', T, 'L', digits(t.goneAt))
    end
    if granted > 0 or #t.gone > 0 then keep(T, twindow) end
    tused = tused + granted
  end
  if rmax > EXACT or tmax > 0 then save(own, made, ttl(rwindow, twindow)) end
  if cmax > 0 then
    redis.call('ZREMRANGEBYSCORE', C, '-inf', digits(now))
    redis.call('ZADD', C, digits(now + lease), id)
    keep(C, lease)
    cused = cused + 1
  end
end

return {'ok', taken, granted,
  rok and 1 or 0, digits(rused), digits(rwait), digits(rreset),
  tok and 1 or 0, digits(tused), digits(twait), digits(treset),
  cok and 1 or 0, digits(cused)}
