package shard

import (
	"encoding/binary"
	"fmt"

	"hanse/internal/hlc"
)

// entryVersion is the first byte of an encoded entry. A reader refuses versions it does not know.
const entryVersion = 1

// MaxCommandBytes bounds the payload of one command: an order of 2,000 lines with long SKUs fits several times.
const MaxCommandBytes = 1 << 20

// AppendEntry appends e's encoding to dst. Index is not part of it: Raft carries it.
//
//	version | time 8 | proposer 8 | count | { kind | tag | caller | key | hash 8 if key | payload } ...
//
// Integers are little-endian or uvarints, strings and payloads are preceded by their length.
func AppendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, entryVersion)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Time))
	dst = binary.LittleEndian.AppendUint64(dst, e.Proposer)
	dst = binary.AppendUvarint(dst, uint64(len(e.Commands)))
	for i := range e.Commands {
		dst = AppendCommand(dst, &e.Commands[i])
	}
	return dst
}

// AppendCommand appends one command's encoding to dst; nodes send commands to each other in it.
func AppendCommand(dst []byte, c *Command) []byte {
	dst = append(dst, byte(c.Kind))
	dst = binary.AppendUvarint(dst, c.Tag)
	dst = appendString(dst, c.Caller)
	dst = appendString(dst, c.Key)
	if c.Key != "" {
		dst = binary.LittleEndian.AppendUint64(dst, c.RequestHash)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Payload)))
	return append(dst, c.Payload...)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// DecodeEntry reads what AppendEntry wrote. Payloads alias data. An error means that data is not an
// entry of a version that this program knows.
func DecodeEntry(data []byte) (Entry, error) {
	d := decoder{rest: data}
	if v := d.byte(); d.err == nil && v != entryVersion {
		return Entry{}, fmt.Errorf("entry version %d is newer than this program's %d: upgrade the node", v, entryVersion)
	}
	e := Entry{Time: hlc.Time(d.uint64()), Proposer: d.uint64()}
	n := d.uvarint()
	if n > uint64(len(data)) { // each command takes more than a byte
		d.fail("count of commands")
	}
	if d.err == nil {
		e.Commands = make([]Command, 0, n)
	}
	for range n {
		if d.err != nil {
			break
		}
		e.Commands = append(e.Commands, d.command())
	}
	if d.err == nil && len(d.rest) > 0 {
		d.fail("end")
	}
	if d.err != nil {
		return Entry{}, d.err
	}
	return e, nil
}

// DecodeCommand reads one command from the front of data and returns the rest.
func DecodeCommand(data []byte) (c Command, rest []byte, err error) {
	d := decoder{rest: data}
	c = d.command()
	return c, d.rest, d.err
}

// decoder reads from the front of rest and remembers the first error.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("malformed entry: bad %s, %d bytes before the end", what, len(d.rest))
	}
	d.rest = nil
}

func (d *decoder) command() Command {
	c := Command{Kind: Kind(d.byte()), Tag: d.uvarint(), Caller: string(d.bytes()), Key: string(d.bytes())}
	if c.Key != "" {
		c.RequestHash = d.uint64()
	}
	c.Payload = d.bytes()
	if len(c.Payload) > MaxCommandBytes {
		d.fail("payload length")
	}
	return c
}

func (d *decoder) byte() byte {
	if len(d.rest) < 1 {
		d.fail("byte")
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uint64() uint64 {
	if len(d.rest) < 8 {
		d.fail("fixed integer")
		return 0
	}
	v := binary.LittleEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 { // only the shortest encoding, so that bytes and values match one to one
		d.fail("integer")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail("length")
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// AppendResult appends r's encoding to dst.
func AppendResult(dst []byte, r *Result) []byte {
	flags := byte(0)
	if r.Replayed {
		flags = 1
	}
	dst = append(dst, flags)
	dst = appendString(dst, r.Code)
	dst = appendString(dst, r.Field)
	dst = appendString(dst, r.Detail)
	dst = appendString(dst, r.Pending)
	dst = binary.AppendUvarint(dst, r.Position)
	dst = binary.AppendUvarint(dst, uint64(len(r.Payload)))
	return append(dst, r.Payload...)
}

// DecodeResult reads what AppendResult wrote, from the front of data, and returns the rest.
func DecodeResult(data []byte) (r Result, rest []byte, err error) {
	d := decoder{rest: data}
	flags := d.byte()
	if flags > 1 {
		d.fail("result flags")
	}
	r = Result{
		Replayed: flags == 1,
		Code:     string(d.bytes()), Field: string(d.bytes()), Detail: string(d.bytes()), Pending: string(d.bytes()),
		Position: d.uvarint(),
		Payload:  d.bytes(),
	}
	return r, d.rest, d.err
}

// EncodeReply makes the payload of a KindReply: the answer to outbox message seq.
func EncodeReply(seq uint64, r *Result) []byte {
	// 32 bytes are enough for numbers and lengths.
	dst := make([]byte, 0, 32+len(r.Code)+len(r.Field)+len(r.Detail)+len(r.Pending)+len(r.Payload))
	return AppendResult(binary.AppendUvarint(dst, seq), r)
}

// DecodeReply reads what EncodeReply wrote.
func DecodeReply(data []byte) (seq uint64, r Result, err error) {
	d := decoder{rest: data}
	seq = d.uvarint()
	if d.err != nil {
		return 0, Result{}, d.err
	}
	r, rest, err := DecodeResult(d.rest)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("malformed reply: %d bytes too many", len(rest))
	}
	return seq, r, err
}

// Stuck is the report that a message could not be delivered for long.
type Stuck struct {
	Seq      uint64
	Attempts uint64
	// NextTry is when the slow retry comes.
	NextTry hlc.Time
	Cause   string
}

// EncodeStuck makes the payload of a KindStuck.
func EncodeStuck(s *Stuck) []byte {
	dst := binary.AppendUvarint(nil, s.Seq)
	dst = binary.AppendUvarint(dst, s.Attempts)
	dst = binary.AppendUvarint(dst, uint64(s.NextTry))
	return appendString(dst, s.Cause)
}

// DecodeStuck reads what EncodeStuck wrote.
func DecodeStuck(data []byte) (Stuck, error) {
	d := decoder{rest: data}
	s := Stuck{Seq: d.uvarint(), Attempts: d.uvarint(), NextTry: hlc.Time(d.uvarint()), Cause: string(d.bytes())}
	if d.err == nil && len(d.rest) > 0 {
		d.fail("end")
	}
	return s, d.err
}

// EntryOrigin returns who proposed an encoded entry and the tag of its first command, without decoding the rest.
// It is false for entries without commands, Raft's own.
func EntryOrigin(data []byte) (proposer, tag uint64, ok bool) {
	d := decoder{rest: data}
	if d.byte() != entryVersion {
		return 0, 0, false
	}
	d.uint64()
	proposer = d.uint64()
	if d.uvarint() == 0 {
		return 0, 0, false
	}
	d.byte()
	tag = d.uvarint()
	return proposer, tag, d.err == nil
}
