-- KEYS: the name in front of all records [, the receipt]. ARGV: kind, id, its unique fields (two, '' for none), its listing field or '', expiry (ms since
-- 1970; 0: never; -1: as before), the guard or '', 1 where it must have a value and 0 where it must have none, that value, life of the receipt in
-- ms, how many fields are given, their names and values, and the names of those that become null.
-- {1, 0, kind, record}: done; {0, 0, kind, record}: the guard does not hold; {0, 0}: none; {2, 0, kind, record}: another one has that
local function ask(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then error(said, 0) end
  return said
end
local base, kind, id, unique, unique2, listing, expiry = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key, is, given, set, nulls = base .. kind .. ':' .. id, {}, {}, {}, {}
local old, new, ours, held -- indexes: before and after; whether the new one is to be written, and the old one is of this record

local function index_of(of)
  local a, b = of[unique], of[unique2]
  if unique == '' or not a then return nil end
  if unique2 == '' then return base .. kind .. '.' .. unique .. ':' .. a end
  return b and base .. kind .. '.' .. unique .. ',' .. unique2 .. ':' .. a .. '\n' .. b
end

local function read(flat)
  local of = {}
  for i = 1, #flat, 2 do of[flat[i]] = flat[i + 1] end
  return of
end

local function look()
  local again = KEYS[2] and ask('GET', KEYS[2])
  local there = ask('HGETALL', key)
  if #there == 0 then return {0, 0} end
  if again then return {1, 0, kind, there} end
  is = read(there)
  if ARGV[7] ~= '' and (ARGV[8] == '1' and is[ARGV[7]] ~= ARGV[9] or ARGV[8] == '0' and is[ARGV[7]]) then return {0, 0, kind, there} end
  old = index_of(is)
  local last = 10 + 1 + 2 * tonumber(ARGV[11])
  for i = 12, last, 2 do
    set[#set + 1] = ARGV[i]
    set[#set + 1] = ARGV[i + 1]
    is[ARGV[i]], given[ARGV[i]] = ARGV[i + 1], true
  end
  for i = last + 1, #ARGV do
    nulls[#nulls + 1] = ARGV[i]
    is[ARGV[i]] = nil
  end
  new = index_of(is)
  held = old and ask('GET', old) == id
  local has = new and ask('GET', new)
  ours = new and not has
  if has and has ~= id then
    local other = ask('HGETALL', base .. kind .. ':' .. has)
    if index_of(read(other)) ~= new then
      ours = true -- what is there names a record that is gone, or says something else
    elseif new ~= old then
      return {2, 0, kind, other}
    end
  end
  if listing ~= '' and is[listing] then ask('ZCARD', base .. kind .. '.' .. listing .. ':' .. is[listing]) end
end

local fine, answer = pcall(look)
if not fine then return type(answer) == 'table' and answer or redis.error_reply('CFDAMAGED') end
if answer then return answer end

-- A server whose memory is full refuses a script's first write where it needs some. What ends a session must work there: KEYS[1] is a name, and no key.
if given.revoked_at then redis.pcall('DEL', base) end
local said = redis.pcall('HSET', key, unpack(set))
if type(said) == 'table' and said.err then return said end
if #nulls > 0 then redis.call('HDEL', key, unpack(nulls)) end
if old ~= new and held then redis.call('DEL', old) end
if ours then redis.call('SET', new, id) end
if expiry == '0' then redis.call('PERSIST', key) elseif expiry ~= '-1' then redis.call('PEXPIREAT', key, expiry) end
local left = redis.call('PTTL', key)
if ours or (held and old == new and expiry ~= '-1') then
  if left == -1 then redis.call('PERSIST', new) else redis.call('PEXPIRE', new, math.max(left, 1)) end
end
if listing ~= '' and is[listing] and expiry ~= '-1' then
  local group = base .. kind .. '.' .. listing .. ':' .. is[listing]
  if left == -1 then
    redis.call('PERSIST', group)
  else
    local groups = redis.call('PTTL', group)
    if groups ~= -1 and groups < left then redis.call('PEXPIRE', group, left) end
  end
end
if KEYS[2] then redis.call('SET', KEYS[2], '1', 'PX', ARGV[10]) end
local record = {}
for name, value in pairs(is) do
  record[#record + 1] = name
  record[#record + 1] = value
end
return {1, 0, kind, record}
