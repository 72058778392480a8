-- KEYS: the name in front of all records [, the receipt]. ARGV: kind, its listing field, the value of the group, an id that stays as it is or '', the
-- guard or '', 1 where it must have a value and 0 where it must have none, that value, 1 where the epoch goes up, life of the receipt in ms, how many
-- fields are given, their names and values, and the names of those that become null. {1, how many}
local function ask(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then error(said, 0) end
  return said
end
local base, kind, listing, value, except, guard = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local group, epoch = base .. kind .. '.' .. listing .. ':' .. value, base .. kind .. '.epoch:' .. value
local gone, keys, set, nulls = {}, {}, {}, {}

local function look()
  local again = KEYS[2] and ask('GET', KEYS[2])
  if again then return {1, tonumber(again)} end
  local number = ask('GET', epoch) or '0'
  if not string.find(number, '^%d+$') or tonumber(number) >= 9007199254740991 then error('epoch') end
  for _, id in ipairs(ask('ZRANGE', group, 0, -1)) do
    local key = base .. kind .. ':' .. id
    local said = ask('HMGET', key, 'id', listing, guard)
    if not (said[1] or said[2]) or (said[2] or value) ~= value then
      gone[#gone + 1] = id
    elseif id ~= except and (guard == '' or ARGV[6] == '1' and said[3] == ARGV[7] or ARGV[6] == '0' and not said[3]) then
      keys[#keys + 1] = key
    end
  end
  local last = 10 + 2 * tonumber(ARGV[10])
  for i = 11, last do set[#set + 1] = ARGV[i] end
  for i = last + 1, #ARGV do nulls[#nulls + 1] = ARGV[i] end
end

local fine, answer = pcall(look)
if not fine then return type(answer) == 'table' and answer or redis.error_reply('CFDAMAGED') end
if answer then return answer end

-- A server whose memory is full refuses a script's first write where it needs some; what ends sessions must work there. KEYS[1] is a name, and no key.
local said = redis.pcall('DEL', base)
if type(said) == 'table' and said.err then return said end
if ARGV[8] == '1' then redis.call('INCR', epoch) end
for _, key in ipairs(keys) do
  if #set > 0 then redis.call('HSET', key, unpack(set)) end
  if #nulls > 0 then redis.call('HDEL', key, unpack(nulls)) end
end
for _, id in ipairs(gone) do redis.call('ZREM', group, id) end
if KEYS[2] then redis.call('SET', KEYS[2], tostring(#keys), 'PX', ARGV[9]) end
return {1, #keys}
