/* slots.c: which slot of a cluster a key is in (redis.io: "Redis cluster specification", hash tags), and names that share the slot of a key. */
#include "redis.h"

/* CRC16 of XMODEM: x^16 + x^12 + x^5 + 1, from zero, nothing reflected. */
static uint16_t step(uint16_t crc, unsigned char byte)
{
    crc = (uint16_t)(crc >> 8 | crc << 8);
    crc ^= byte;
    crc ^= (uint16_t)((crc & 0xff) >> 4);
    crc ^= (uint16_t)(crc << 12);
    crc ^= (uint16_t)((crc & 0xff) << 5);
    return crc;
}

static uint16_t crc16(uint16_t crc, cf_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) crc = step(crc, (unsigned char)bytes.ptr[i]);
    return crc;
}

/* What is between the first { and the first } behind it chooses the slot, if it is anything; else the whole key does. */
static bool find_tag(cf_slice key, cf_slice *tag)
{
    const char *open = key.len ? memchr(key.ptr, '{', key.len) : NULL;
    if (!open) return false;
    size_t      left = key.len - (size_t)(open - key.ptr) - 1;
    const char *close = left ? memchr(open + 1, '}', left) : NULL;
    if (!close || close == open + 1) return false;
    *tag = cf_bytes(open + 1, (size_t)(close - open) - 1);
    return true;
}

uint16_t redis_slot(cf_slice key)
{
    cf_slice tag;
    return crc16(0, find_tag(key, &tag) ? tag : key) % REDIS_SLOTS;
}

bool redis_slot_by_tag(cf_slice key)
{
    cf_slice tag;
    return find_tag(key, &tag);
}

/* One bit of step() undone: what the register was before a zero was shifted in. */
static uint16_t back(uint16_t crc)
{
    for (int i = 0; i < 16; i++) crc = crc & 1 ? (uint16_t)((crc ^ 0x1021) >> 1 | 0x8000) : (uint16_t)(crc >> 1);
    return crc;
}

size_t redis_slot_tail(cf_slice key, cf_slice name, char tail[REDIS_TAIL])
{
    if (redis_slot_by_tag(key)) return 0;
    uint16_t wanted = back(crc16(0, key)), so_far = crc16(0, name);
    /* Two bytes take the register from anywhere to anywhere. A first one is tried until neither of them makes a tag of what is in front of it. */
    for (int first = 'a'; first <= 'z'; first++) {
        uint16_t two = step(so_far, (unsigned char)first) ^ wanted;
        char     high = (char)(two >> 8), low = (char)(two & 0xff);
        if (high == '{' || high == '}' || low == '{' || low == '}') continue;
        tail[0] = (char)first;
        tail[1] = high;
        tail[2] = low;
        return REDIS_TAIL;
    }
    return 0; /* never: of 26 in a row at most a few are refused */
}
