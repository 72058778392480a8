-- KEYS: the name in front of all records [, the receipt]. ARGV: life of the receipt in ms, id, kind, its unique fields (two, '' for none), its listing field
-- or ''; the same four of each kind that goes with it, the group of this id, and 1 where the epoch of that goes up. {1, 0}: it was there; {0, 0}
local function ask(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then error(said, 0) end
  return said
end
local base, id, keys, epochs, group = KEYS[1], ARGV[2], {}, {}, nil

-- A record, and its index where that names it; but none of another group.
local function take(of, kind, unique, unique2, listing, parent)
  local key = base .. kind .. ':' .. of
  local said = ask('HMGET', key, unique, unique2, listing)
  local index
  if parent and said[3] and said[3] ~= parent then return end
  if unique ~= '' and said[1] then
    if unique2 == '' then
      index = base .. kind .. '.' .. unique .. ':' .. said[1]
    elseif said[2] then
      index = base .. kind .. '.' .. unique .. ',' .. unique2 .. ':' .. said[1] .. '\n' .. said[2]
    end
  end
  keys[#keys + 1] = key
  if index and ask('GET', index) == of then keys[#keys + 1] = index end
  return said[3]
end

local function look()
  if KEYS[2] and ask('GET', KEYS[2]) then return {1, 0} end
  local kind = ARGV[3]
  if ask('EXISTS', base .. kind .. ':' .. id) == 0 then return {0, 0} end
  local value = take(id, kind, ARGV[4], ARGV[5], ARGV[6])
  if ARGV[6] ~= '' and value then
    group = base .. kind .. '.' .. ARGV[6] .. ':' .. value
    ask('ZCARD', group)
  end
  for at = 7, #ARGV, 5 do
    local child = ARGV[at]
    local all = base .. child .. '.' .. ARGV[at + 3] .. ':' .. id
    for _, of in ipairs(ask('ZRANGE', all, 0, -1)) do take(of, child, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], id) end
    keys[#keys + 1] = all
    if ARGV[at + 4] == '1' then
      local epoch = base .. child .. '.epoch:' .. id
      local number = ask('GET', epoch) or '0'
      if not string.find(number, '^%d+$') or tonumber(number) >= 9007199254740991 then error('epoch') end
      epochs[#epochs + 1] = epoch
    end
  end
end

local fine, answer = pcall(look)
if not fine then return type(answer) == 'table' and answer or redis.error_reply('CFDAMAGED') end
if answer then return answer end

-- First what needs no memory: so it works on a server that has none left.
for i, key in ipairs(keys) do
  local said = redis.pcall('DEL', key)
  if i == 1 and type(said) == 'table' and said.err then return said end
end
if group then redis.call('ZREM', group, id) end
for _, epoch in ipairs(epochs) do redis.call('INCR', epoch) end
if KEYS[2] then redis.call('SET', KEYS[2], '1', 'PX', ARGV[1]) end
return {1, 0}
