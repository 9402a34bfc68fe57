// Package id makes and reads Hanse's public identifiers: "ord_" and 26 characters.
//
//	 48 bits          16 bits   64 bits
//	┌────────────────┬─────────┬──────────────┐
//	│ milliseconds   │ slot    │ random       │   in Crockford's base 32, lower case
//	└────────────────┴─────────┴──────────────┘
//
// They sort by time, and any node finds the shard of an object from its ID alone. The proposer makes them; a
// state machine never does. A payment has the same 26 characters as its order.
package id

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"

	"hanse/internal/slot"
)

// The kinds of objects, which are the prefixes of their IDs.
const (
	Order       = "ord"
	Payment     = "pay"
	Reservation = "rsv"
	Fulfillment = "ful"
	Return      = "ret"
	Refund      = "rfd"
	Endpoint    = "whe"
)

// Crockford's alphabet, without i, l, o and u.
var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

const suffixLength = 26

// New makes an ID of a kind from the slot it belongs to, the time and a random number of its own.
func New(kind string, s slot.Slot, millis int64, random uint64) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(millis)<<16|uint64(s))
	binary.BigEndian.PutUint64(raw[8:], random)
	return kind + "_" + encoding.EncodeToString(raw[:])
}

// Parse checks that s is an ID of the given kind and returns its slot.
func Parse(kind, s string) (slot.Slot, error) {
	suffix, ok := strings.CutPrefix(s, kind+"_")
	if !ok || len(suffix) != suffixLength {
		return 0, fmt.Errorf("%q is not an ID of the form %s_ and %d characters", s, kind, suffixLength)
	}
	var raw [16]byte
	if _, err := encoding.Decode(raw[:], []byte(suffix)); err != nil {
		return 0, fmt.Errorf("%q is not an ID: a character after %s_ is not in 0-9 a-z without i, l, o, u", s, kind)
	}
	sl := binary.BigEndian.Uint16(raw[6:8])
	if sl >= slot.Count || encoding.EncodeToString(raw[:]) != suffix {
		return 0, fmt.Errorf("%q is not an ID that Hanse made", s)
	}
	return slot.Slot(sl), nil
}

// Millis returns the time in a valid ID, in milliseconds since 1970 UTC; 0 for anything else.
func Millis(s string) int64 {
	_, suffix, _ := strings.Cut(s, "_")
	var raw [16]byte
	if len(suffix) != suffixLength {
		return 0
	}
	if _, err := encoding.Decode(raw[:], []byte(suffix)); err != nil {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw[:8]) >> 16)
}

// Sibling returns the ID of another kind with the same 26 characters: the payment of an order.
func Sibling(kind, s string) string {
	_, suffix, _ := strings.Cut(s, "_")
	return kind + "_" + suffix
}
