-- KEYS: the name in front of all records. ARGV: expiry in ms since 1970 (0: never), now, epoch (-1: any), most (0: any number), 1 where the oldest goes
-- then; for each record: kind, its unique fields (two, '' for none), its listing field or '', the kind of the parent that it needs or '', how many
-- fields it has, their names and values. {1, epoch}: done; {1, epoch, kind}: done before; {2, 0, kind, record}: that one is there; {3, 0, kind}: no parent;
-- {4, 0}: another epoch; {5, 0, kind}: as many as are allowed
local function ask(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then error(said, 0) end
  return said
end
local base, expiry, now, wanted, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local records, gone, victims = {}, {}, {}

local function index_of(r, is)
  local a, b = is[r.unique], is[r.unique2]
  if r.unique == '' or not a then return nil end
  if r.unique2 == '' then return base .. r.kind .. '.' .. r.unique .. ':' .. a end
  return b and base .. r.kind .. '.' .. r.unique .. ',' .. r.unique2 .. ':' .. a .. '\n' .. b
end

local function number(text)
  if not string.find(text, '^%d+$') then error('number') end
  return tonumber(text)
end

-- The record that has the same unique fields. An index that names a record which is gone, or says something else, names nobody.
local function taken(r)
  local id = r.index and ask('GET', r.index)
  if not id then return nil end
  local there, is = ask('HGETALL', base .. r.kind .. ':' .. id), {}
  for i = 1, #there, 2 do is[there[i]] = there[i + 1] end
  return index_of(r, is) == r.index and there or nil
end

-- Who must go so that there is room in the group. False: nobody may.
local function make_room(r)
  local ended, others = {}, {}
  for _, id in ipairs(ask('ZRANGE', r.group, 0, -1)) do -- by created_at, then id
    local said = ask('HMGET', base .. r.kind .. ':' .. id, 'id', 'revoked_at', 'expires_at', r.unique, r.unique2, r.listing)
    if (said[1] or said[6]) and (said[6] or r.is[r.listing]) == r.is[r.listing] then
      local one = {id = id, is = {}}
      if said[4] then one.is[r.unique] = said[4] end
      if said[5] then one.is[r.unique2] = said[5] end
      local group = (said[2] or (said[3] and number(said[3]) < now)) and ended or others
      group[#group + 1] = one
    else
      gone[#gone + 1] = id
    end
  end
  local surplus = #ended + #others - most + 1
  if surplus > #ended and ARGV[5] ~= '1' then return false end
  for i = 1, surplus do
    local one = ended[i] or others[i - #ended]
    one.index = index_of(r, one.is)
    if one.index and ask('GET', one.index) ~= one.id then one.index = nil end
    victims[i] = one
  end
  return true
end

local function look()
  local at = 6
  while ARGV[at] do
    local r = {kind = ARGV[at], unique = ARGV[at + 1], unique2 = ARGV[at + 2], listing = ARGV[at + 3], parent = ARGV[at + 4], is = {}, flat = {}, epoch = 0}
    local count = tonumber(ARGV[at + 5])
    for i = at + 6, at + 4 + 2 * count, 2 do
      r.is[ARGV[i]] = ARGV[i + 1]
      r.flat[#r.flat + 1] = ARGV[i]
      r.flat[#r.flat + 1] = ARGV[i + 1]
    end
    at = at + 6 + 2 * count
    r.key = base .. r.kind .. ':' .. r.is.id
    r.index = index_of(r, r.is)
    records[#records + 1] = r
  end
  for i, r in ipairs(records) do
    if ask('EXISTS', r.key) == 1 then return {1, number(ask('HGET', r.key, 'epoch') or '0'), r.kind} end
    local there = taken(r)
    if there then return {2, 0, r.kind, there} end
    if r.listing ~= '' then
      local value, first = r.is[r.listing], records[1]
      if r.parent ~= '' and not (i > 1 and first.kind == r.parent and first.is.id == value) and ask('EXISTS', base .. r.parent .. ':' .. value) == 0 then
        return {3, 0, r.kind}
      end
      r.epoch = number(ask('GET', base .. r.kind .. '.epoch:' .. value) or '0')
      if wanted >= 0 and wanted ~= r.epoch then return {4, 0} end
      r.group = base .. r.kind .. '.' .. r.listing .. ':' .. value
      if ask('ZCARD', r.group) >= most and most > 0 and i == #records and not make_room(r) then return {5, 0, r.kind} end
    end
  end
end

local fine, answer = pcall(look)
if not fine then return type(answer) == 'table' and answer or redis.error_reply('CFDAMAGED') end
if answer then return answer end

-- From here on nothing can fail but the first write, which a full or read-only server refuses.
for _, r in ipairs(records) do
  for j = 1, #r.flat, 2 do
    if r.flat[j] == 'epoch' then r.flat[j + 1] = string.format('%.0f', r.epoch) end
  end
  local said = redis.pcall('HSET', r.key, unpack(r.flat))
  if type(said) == 'table' and said.err then return said end
  if r.index then redis.call('SET', r.index, r.is.id) end
  if expiry ~= '0' then
    redis.call('PEXPIREAT', r.key, expiry)
    if r.index then redis.call('PEXPIREAT', r.index, expiry) end
  end
  if r.group then
    local left = redis.call('PTTL', r.group) -- -2: there is none yet
    redis.call('ZADD', r.group, r.is.created_at, r.is.id)
    -- A group lives as long as the last of its records.
    if expiry == '0' then
      redis.call('PERSIST', r.group)
    elseif left == -2 or (left >= 0 and left < redis.call('PTTL', r.key)) then
      redis.call('PEXPIREAT', r.group, expiry)
    end
  end
end
local last = records[#records]
for _, id in ipairs(gone) do redis.call('ZREM', last.group, id) end
for _, one in ipairs(victims) do
  redis.call('DEL', base .. last.kind .. ':' .. one.id)
  redis.call('ZREM', last.group, one.id)
  if one.index then redis.call('DEL', one.index) end
end
return {1, last.epoch}
