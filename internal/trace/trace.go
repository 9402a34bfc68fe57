package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
)

// ID names a trace. The zero ID is none.
type ID [16]byte

// NewID makes an ID of two random numbers.
func NewID(a, b uint64) (id ID) {
	binary.BigEndian.PutUint64(id[:], a)
	binary.BigEndian.PutUint64(id[8:], b|1) // never zero
	return id
}

// IsZero reports whether there is no trace.
func (id ID) IsZero() bool { return id == ID{} }

// Append appends the ID as 32 hexadecimal digits.
func (id ID) Append(dst []byte) []byte { return hex.AppendEncode(dst, id[:]) }

// String returns the 32 hexadecimal digits, nothing for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// A traceparent is version-trace-parent-flags in lower case: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.
const (
	parentAt     = 3 + 32 + 1
	flagsAt      = parentAt + 16 + 1
	parentLength = flagsAt + 2
)

// Parse reads a traceparent header; false for one that is not valid, which is to be ignored. One of a later version counts as far
// as it looks like version 00.
func Parse(traceparent string) (id ID, ok bool) {
	s := traceparent
	if len(s) < parentLength || s[2] != '-' || s[parentAt-1] != '-' || s[flagsAt-1] != '-' {
		return ID{}, false
	}
	var version, flags [1]byte
	var parent [8]byte
	if !decode(version[:], s[:2]) || !decode(id[:], s[3:parentAt-1]) || !decode(parent[:], s[parentAt:flagsAt-1]) || !decode(flags[:], s[flagsAt:parentLength]) {
		return ID{}, false
	}
	switch rest := s[parentLength:]; {
	case version[0] == 0xff, version[0] == 0 && rest != "", rest != "" && rest[0] != '-':
		return ID{}, false
	case id.IsZero(), parent == [8]byte{}:
		return ID{}, false
	}
	return id, true
}

// decode reads as many lower-case digits as dst has room for.
func decode(dst []byte, s string) bool {
	for i := range dst {
		hi, ok := digit(s[2*i])
		lo, ok2 := digit(s[2*i+1])
		if !ok || !ok2 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func digit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// traced is a context with a trace; context.WithValue would take another allocation for the ID.
type traced struct {
	context.Context
	id ID
}

type key struct{}

func (t *traced) Value(k any) any {
	if k == (key{}) {
		return t
	}
	return t.Context.Value(k)
}

// With returns a context of ctx that carries the trace.
func With(ctx context.Context, id ID) context.Context { return &traced{ctx, id} }

// Of returns the trace that ctx carries, the zero ID for none.
func Of(ctx context.Context) ID {
	if t, ok := ctx.Value(key{}).(*traced); ok {
		return t.id
	}
	return ID{}
}
