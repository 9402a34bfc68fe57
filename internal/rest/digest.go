package rest

// digest collects what a request asks for, to notice another one under the same idempotency key: 64-bit FNV-1a, finished by
// the mixer of MurmurHash3. It is in the log: it never changes, and it is the same on every node. It need not resist an
// attacker, who could only fool his own key.
type digest uint64

const (
	digestOffset digest = 14695981039346656037
	digestPrime  digest = 1099511628211
)

func newDigest() digest { return digestOffset }

func (d digest) byte(c byte) digest { return (d ^ digest(c)) * digestPrime }

// text adds a string and its end, so that "ab", "c" is not "a", "bc".
func (d digest) text(s string) digest {
	h := d
	for i := range len(s) {
		h = h.byte(s[i])
	}
	return h.byte(0xff) // is in no UTF-8
}

func (d digest) bytes(b []byte) digest {
	h := d
	for _, c := range b {
		h = h.byte(c)
	}
	return h
}

func (d digest) number(n uint64) digest { return (d ^ digest(n)) * digestPrime }

// sum spreads the last bytes over all bits.
func (d digest) sum() uint64 {
	h := uint64(d)
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// json adds what a JSON value says rather than its bytes: a retry whose client orders members otherwise, spaces or escapes them,
// or writes null for nothing, is the same request. No body says what an empty object does. Anything may be passed; only
// for what the parser accepts the digest means something.
func (d digest) json(data []byte) digest {
	p := parser{data: data}
	if p.next() == 0 {
		return d.number(newDigest().byte('{').sum())
	}
	return d.number(digestValue(&p, 0))
}

// maxDigestDepth bounds the recursion; no request that is accepted is as deep.
const maxDigestDepth = 8

func digestValue(p *parser, depth int) uint64 {
	d := newDigest()
	c := p.next()
	switch {
	case depth > maxDigestDepth:
		p.fail("too deep")
	case c == '{':
		p.pos++
		var members uint64 // a sum, so that their order does not matter
		for p.err == nil && !p.take('}') {
			name := digestString(p)
			if !p.take(':') {
				p.fail("no colon")
			}
			if !p.null() {
				members += digest(name).number(digestValue(p, depth+1)).sum()
			}
			if !p.take(',') && p.next() != '}' {
				p.fail("no end")
			}
		}
		d = d.byte('{')
		if members != 0 {
			d = d.number(members)
		}
	case c == '[':
		p.pos++
		d = d.byte('[')
		for p.err == nil && !p.take(']') {
			d = d.number(digestValue(p, depth+1))
			if !p.take(',') && p.next() != ']' {
				p.fail("no end")
			}
		}
	case c == '"':
		return digestString(p)
	default: // a number, true or false
		for p.pos < len(p.data) {
			c = p.data[p.pos]
			if c == ',' || c == '}' || c == ']' || c <= ' ' {
				break
			}
			d = d.byte(c)
			p.pos++
		}
		d = d.byte('0')
	}
	return d.sum()
}

// digestString digests what a string says; the usual one has no escapes and is not copied.
func digestString(p *parser) uint64 {
	d := newDigest().byte('"')
	if p.next() != '"' {
		p.fail("no string")
		return 0
	}
	for i := p.pos + 1; i < len(p.data); i++ {
		switch p.data[i] {
		case '"':
			p.pos = i + 1
			return d.sum()
		case '\\':
			return newDigest().byte('"').bytes([]byte(p.str())).sum()
		}
		d = d.byte(p.data[i])
	}
	p.fail("the string does not end")
	return 0
}
