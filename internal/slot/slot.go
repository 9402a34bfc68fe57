// Package slot maps keys to the 16,384 slots that a service's shards divide among themselves.
//
// The function is Redis Cluster's (CRC16/XMODEM modulo 16384, with hash tags), so that a Redis
// client that routes for itself agrees with us: keys "{user7}.cart" and "{user7}.seen" share a slot.
package slot

import "strings"

// Count is the number of slots of every service.
const Count = 16384

// Slot is a slot number, 0 to Count-1.
type Slot uint16

// Of returns the slot of key. When key holds a non-empty hash tag, the part between the first '{'
// and the first '}' after it, only the tag is hashed. Redis Cluster specification, "Hash tags".
func Of(key string) Slot {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if length := strings.IndexByte(key[open+1:], '}'); length > 0 {
			key = key[open+1 : open+1+length]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ table[byte(crc>>8)^key[i]]
	}
	return Slot(crc % Count)
}

// table is CRC16/XMODEM's: polynomial 0x1021, initial value 0, not reflected.
var table = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()
