-- KEYS: the key [, the receipt]. ARGV: by, ttl in ms of a new one (0: none) [, fingerprint, life of the receipt in ms]. The new number.
if KEYS[2] then
  local kept = redis.call('GET', KEYS[2])
  if kept then
    if string.sub(kept, 1, #ARGV[3]) ~= ARGV[3] then return redis.error_reply('CFRECEIPT') end
    return tonumber(string.sub(kept, #ARGV[3] + 1))
  end
end
local there = redis.call('EXISTS', KEYS[1])
local number = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(number) == 'table' then
  if string.find(number.err, 'not an integer', 1, true) then return redis.error_reply('CFNUMBER') end
  if string.find(number.err, 'overflow', 1, true) then return redis.error_reply('CFRANGE') end
  return number
end
-- The server counts to 2^63; every host is exact to 2^53 - 1. A new key cannot pass that, so what is undone here was there before.
if number > 9007199254740991 or number < -9007199254740991 then
  redis.call('INCRBY', KEYS[1], string.format('%.0f', -tonumber(ARGV[1])))
  return redis.error_reply('CFRANGE')
end
if there == 0 and ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[3] .. string.format('%.0f', number), 'PX', ARGV[4]) end
return number
