package rest

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// encoder appends JSON. Its caller keeps objects and arrays balanced; it sets the commas itself, by
// looking at the byte before. What is before start is not its own.
type encoder struct {
	b     []byte
	start int
}

func (e *encoder) comma() {
	if n := len(e.b); n > e.start && e.b[n-1] != '{' && e.b[n-1] != '[' && e.b[n-1] != ':' {
		e.b = append(e.b, ',')
	}
}

// key starts a member; the name needs no escaping.
func (e *encoder) key(name string) {
	e.comma()
	e.b = append(e.b, '"')
	e.b = append(e.b, name...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) open(c byte) {
	e.comma()
	e.b = append(e.b, c)
}

func (e *encoder) close(c byte) { e.b = append(e.b, c) }

func (e *encoder) str(name, v string) {
	e.key(name)
	e.b = appendString(e.b, v)
}

// opt writes a member unless it is empty.
func (e *encoder) opt(name, v string) {
	if v != "" {
		e.str(name, v)
	}
}

func (e *encoder) int(name string, v int64) {
	e.key(name)
	e.b = strconv.AppendInt(e.b, v, 10)
}

// float writes a measure, to three decimals.
func (e *encoder) float(name string, v float64) {
	e.key(name)
	e.b = strconv.AppendFloat(e.b, math.Round(v*1000)/1000, 'f', -1, 64)
}

// millis writes a duration in milliseconds.
func (e *encoder) millis(name string, d time.Duration) { e.float(name, d.Seconds()*1000) }

// uints writes an array of numbers, and strs one of strings.
func (e *encoder) uints(name string, all []uint64) {
	e.key(name)
	e.open('[')
	for _, v := range all {
		e.comma()
		e.b = strconv.AppendUint(e.b, v, 10)
	}
	e.close(']')
}

func (e *encoder) strs(name string, all []string) {
	e.key(name)
	e.open('[')
	for _, v := range all {
		e.comma()
		e.b = appendString(e.b, v)
	}
	e.close(']')
}

func (e *encoder) bool(name string, v bool) {
	e.key(name)
	e.b = strconv.AppendBool(e.b, v)
}

// time writes a time in RFC 3339 with milliseconds; 0 is left out.
func (e *encoder) time(name string, millis int64) {
	if millis == 0 {
		return
	}
	e.key(name)
	e.b = append(e.b, '"')
	e.b = appendTime(e.b, millis)
	e.b = append(e.b, '"')
}

// appendTime writes 2006-01-02T15:04:05.000Z.
func appendTime(b []byte, millis int64) []byte {
	return time.UnixMilli(millis).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

const hexDigits = "0123456789abcdef"

// appendString quotes s as JSON; bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
