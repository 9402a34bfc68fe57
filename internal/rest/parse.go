package rest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"hanse/internal/reject"
)

// parser reads JSON strictly and knows where it is: a violation is reported with its JSON pointer. It is
// stricter than encoding/json, where a typo could change what a customer pays: names match by case, unknown and
// repeated names are refused, whole numbers have neither fraction nor exponent, strings are valid UTF-8, and nothing
// follows the value. A null counts as absent, but for a list. It recurses only into what the caller asks for, so input cannot
// choose the depth.
//
// The first violation sticks: from then on every method returns zero values, and the caller looks at err once.
type parser struct {
	data []byte
	pos  int
	path []segment
	err  *reject.Rejection
	room [4]segment // backs path: requests are at most four levels deep
}

// segment is one step of a JSON pointer: a name, or an index when the name is empty.
type segment struct {
	name  string
	index int
}

// pointer returns where the parser is, extended by further names.
func (p *parser) pointer(more ...string) string {
	var b strings.Builder
	for _, s := range p.path {
		b.WriteByte('/')
		if s.name == "" {
			b.WriteString(strconv.Itoa(s.index))
		} else {
			b.WriteString(s.name)
		}
	}
	for _, name := range more {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	return b.String()
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &reject.Rejection{Code: reject.InvalidRequest, Field: p.pointer(), Detail: fmt.Sprintf(format, args...)}
	}
}

func (p *parser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\n', '\r', '\t':
			p.pos++
		default:
			return
		}
	}
}

// next returns the first byte of the next value, 0 at the end.
func (p *parser) next() byte {
	p.space()
	if p.err != nil || p.pos >= len(p.data) {
		return 0
	}
	return p.data[p.pos]
}

func (p *parser) take(c byte) bool {
	if p.next() != c {
		return false
	}
	p.pos++
	return true
}

// null consumes a null, if that is what comes.
func (p *parser) null() bool {
	if p.next() == 'n' && strings.HasPrefix(string(p.data[p.pos:min(p.pos+4, len(p.data))]), "null") {
		p.pos += 4
		return true
	}
	return false
}

// what names the value that comes next, for messages.
func (p *parser) what() string {
	switch c := p.next(); {
	case c == 0:
		return "the end of the body"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	case c == 'n':
		return "null"
	default:
		return strconv.QuoteRune(rune(c))
	}
}

// lists are the members of all requests that hold one. Left out some mean all, so a null there is refused: a caller whose list
// was never made must not ship everything.
var lists = []string{"items", "lines", "roles", "types"}

// object reads an object whose names are all listed, at most 64 of them, and calls field with the
// position in names of each that is present and not null.
func (p *parser) object(names []string, field func(i int)) {
	if !p.take('{') {
		p.fail("found %s, want an object", p.what())
		return
	}
	if p.take('}') {
		return
	}
	var seen uint64
	for p.err == nil {
		i, name := p.name(names)
		if p.err != nil {
			return
		}
		if i < 0 {
			p.err = &reject.Rejection{Code: reject.UnknownField, Field: p.pointer(name), Detail: "there is no such field here; known are " + strings.Join(names, ", ")}
			return
		}
		if !p.take(':') {
			p.fail("found %s after the name %q, want a colon", p.what(), names[i])
			return
		}
		p.path = append(p.path, segment{name: names[i]})
		if seen&(1<<i) != 0 {
			p.fail("the field occurs twice")
			return
		}
		seen |= 1 << i
		switch {
		case !p.null():
			field(i)
		case slices.Contains(lists, names[i]):
			p.fail("is null, want a list")
		}
		if p.err != nil {
			return
		}
		p.path = p.path[:len(p.path)-1]
		if p.take(',') {
			continue
		}
		if !p.take('}') {
			p.fail("found %s in an object, want a comma or its end", p.what())
		}
		return
	}
}

// name reads the name of a member and returns its position in names; for one that is not there, -1 and the name. The
// usual one is written without escapes, compared in place and not copied.
func (p *parser) name(names []string) (int, string) {
	if p.next() == '"' {
		rest := p.data[p.pos+1:]
		for i, n := range names {
			if len(rest) > len(n) && rest[len(n)] == '"' && string(rest[:len(n)]) == n {
				p.pos += len(n) + 2
				return i, ""
			}
		}
	}
	name := p.str()
	return slices.Index(names, name), name
}

// array reads an array and calls element with the index of each.
func (p *parser) array(element func(i int)) {
	if !p.take('[') {
		p.fail("found %s, want an array", p.what())
		return
	}
	if p.take(']') {
		return
	}
	for i := 0; p.err == nil; i++ {
		p.path = append(p.path, segment{index: i})
		element(i)
		if p.err != nil {
			return
		}
		p.path = p.path[:len(p.path)-1]
		if p.take(',') {
			continue
		}
		if !p.take(']') {
			p.fail("found %s in an array, want a comma or its end", p.what())
		}
		return
	}
}

func (p *parser) int() int64 {
	c := p.next()
	start := p.pos
	i := start
	if c == '-' {
		i++
	}
	first := i
	for i < len(p.data) && p.data[i] >= '0' && p.data[i] <= '9' {
		i++
	}
	switch {
	case p.err != nil:
		return 0
	case i == first:
		p.fail("found %s, want a whole number", p.what())
		return 0
	case p.data[first] == '0' && i > first+1:
		p.fail("a number does not start with a zero")
		return 0
	case i < len(p.data) && (p.data[i] == '.' || p.data[i] == 'e' || p.data[i] == 'E'):
		p.fail("found a number with a fraction or exponent, want a whole number")
		return 0
	}
	n, err := strconv.ParseInt(string(p.data[start:i]), 10, 64)
	if err != nil {
		p.fail("the number does not fit 64 bits")
		return 0
	}
	p.pos = i
	return n
}

func (p *parser) bool() bool {
	p.next()
	rest := p.data[p.pos:]
	switch {
	case p.err != nil:
	case len(rest) >= 4 && string(rest[:4]) == "true":
		p.pos += 4
		return true
	case len(rest) >= 5 && string(rest[:5]) == "false":
		p.pos += 5
	default:
		p.fail("found %s, want true or false", p.what())
	}
	return false
}

func (p *parser) str() string {
	if !p.take('"') {
		p.fail("found %s, want a string", p.what())
		return ""
	}
	start := p.pos
	for i := start; i < len(p.data); i++ {
		switch c := p.data[i]; {
		case c == '"':
			p.pos = i + 1
			return string(p.data[start:i])
		case c == '\\' || c < 0x20 || c >= utf8.RuneSelf:
			return p.longString(start, i)
		}
	}
	p.pos = len(p.data)
	p.fail("the string does not end")
	return ""
}

// longString finishes a string that is not plain ASCII from position i on.
func (p *parser) longString(start, i int) string {
	b := append([]byte(nil), p.data[start:i]...)
	for i < len(p.data) {
		c := p.data[i]
		switch {
		case c == '"':
			p.pos = i + 1
			return string(b)
		case c < 0x20:
			p.fail("the string has a control character that is not escaped")
			return ""
		case c == '\\':
			r, n := unescape(p.data[i:])
			if n == 0 {
				p.fail("the string has an escape sequence that is not JSON")
				return ""
			}
			b = utf8.AppendRune(b, r)
			i += n
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRune(p.data[i:])
			if r == utf8.RuneError && n == 1 {
				p.fail("the string is not UTF-8")
				return ""
			}
			b = append(b, p.data[i:i+n]...)
			i += n
		}
	}
	p.pos = len(p.data)
	p.fail("the string does not end")
	return ""
}

// unescape reads the escape sequence at the start of b and returns its length, 0 if it is not one.
func unescape(b []byte) (rune, int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return 0, 0
	}
	high, ok := hex4(b[2:])
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(high) {
		return high, 6
	}
	if len(b) < 8 || b[6] != '\\' || b[7] != 'u' {
		return 0, 0
	}
	low, ok := hex4(b[8:])
	r := utf16.DecodeRune(high, low)
	if !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil && b[0] != '+' && b[0] != '-'
}

// end reports anything that follows the value and returns the first violation.
func (p *parser) end() *reject.Rejection {
	if p.err == nil {
		p.path = p.path[:0]
		if p.next() != 0 || p.pos < len(p.data) {
			p.fail("found %s after the end of the body's value", p.what())
		}
	}
	return p.err
}
