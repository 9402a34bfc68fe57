package grpctransport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"hanse/internal/transport"
)

// The frame format, protocol version 1. Numbers are varints in their shortest form, so that equal
// frames have equal bytes.
//
//	frame   = crc32c of the rest (4 bytes, little-endian), message*
//	message = length of the rest, kind (1 byte), group, from replica, to replica, id, content
//	content = the body, or for KindRaft:
//	raft    = type, mask, then what the mask names, in the order of its bits
//	entry   = type, term, index, length, data
//	context, snapshot (a protobuf) = length, bytes      entries = count, entry*
//
// From and To of a Raft message are the replicas of the envelope. The checksum is there because TCP's 16 bits let a
// corrupted entry through every few million damaged packets, and an altered entry splits the replicas for good.
// The bits of the mask: those of common messages fit its first byte.
const (
	maskTerm = 1 << iota
	maskIndex
	maskLogTerm
	maskCommit
	maskReject // has no content
	maskContext
	maskEntries
	maskRejectHint
	maskVote
	maskSnapshot
	maskEnd
)

const (
	checksumBytes = 4
	minEntryBytes = 4
)

// maxFrameMessages and maxFrameBytes bound what one frame carries: large enough to make the cost of a frame
// vanish, small enough that a heartbeat behind it waits a millisecond only. A message larger than that travels alone.
const (
	maxFrameMessages = 1024
	maxFrameBytes    = 1 << 20
)

// maxWireBytes bounds an encoded frame. An entry takes up to 26 bytes beside its data where SizeBytes counts 16.
const maxWireBytes = 2 * transport.MaxRaftBytes

// maxFrameEntries bounds the entries of a frame: an entry of 4 bytes becomes more than a hundred when decoded.
const maxFrameEntries = transport.MaxRaftBytes / 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encoder turns messages into frames. It keeps scratch space and is used by one goroutine.
type encoder struct{ scratch []byte }

// appendFrame appends a frame of messages, which have passed Check, to b, which is empty.
func (e *encoder) appendFrame(b []byte, messages []transport.Message) ([]byte, error) {
	b = append(b, 0, 0, 0, 0)
	for i := range messages {
		var err error
		if b, err = e.appendMessage(b, &messages[i]); err != nil {
			return nil, err
		}
	}
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[checksumBytes:], castagnoli))
	return b, nil
}

func (e *encoder) appendMessage(b []byte, m *transport.Message) ([]byte, error) {
	// The head goes to the scratch space first, for the length comes before it; bodies are copied once.
	h := append(e.scratch[:0], byte(m.Kind))
	h = binary.AppendUvarint(h, uint64(m.Group))
	h = binary.AppendUvarint(h, m.FromReplica)
	h = binary.AppendUvarint(h, m.ToReplica)
	h = binary.AppendUvarint(h, m.ID)
	if m.Kind == transport.KindRaft {
		var err error
		if h, err = appendRaft(h, m.Raft); err != nil {
			return nil, err
		}
	}
	b = binary.AppendUvarint(b, uint64(len(h)+len(m.Body)))
	b = append(b, h...)
	b = append(b, m.Body...)
	if cap(h) <= maxFrameBytes {
		e.scratch = h
	}
	return b, nil
}

func appendRaft(b []byte, m *raftpb.Message) ([]byte, error) {
	var mask uint64
	set := func(bit uint64, present bool) {
		if present {
			mask |= bit
		}
	}
	set(maskTerm, m.GetTerm() != 0)
	set(maskIndex, m.GetIndex() != 0)
	set(maskLogTerm, m.GetLogTerm() != 0)
	set(maskCommit, m.GetCommit() != 0)
	set(maskReject, m.GetReject())
	set(maskContext, len(m.Context) > 0)
	set(maskEntries, len(m.Entries) > 0)
	set(maskRejectHint, m.GetRejectHint() != 0)
	set(maskVote, m.GetVote() != 0)
	set(maskSnapshot, m.Snapshot != nil)

	b = binary.AppendUvarint(b, uint64(m.GetType()))
	b = binary.AppendUvarint(b, mask)
	b = appendNonZero(b, m.GetTerm())
	b = appendNonZero(b, m.GetIndex())
	b = appendNonZero(b, m.GetLogTerm())
	b = appendNonZero(b, m.GetCommit())
	if len(m.Context) > 0 {
		b = appendBytes(b, m.Context)
	}
	if len(m.Entries) > 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Entries)))
		for _, e := range m.Entries {
			b = binary.AppendUvarint(b, uint64(e.GetType()))
			b = binary.AppendUvarint(b, e.GetTerm())
			b = binary.AppendUvarint(b, e.GetIndex())
			b = appendBytes(b, e.Data)
		}
	}
	b = appendNonZero(b, m.GetRejectHint())
	b = appendNonZero(b, m.GetVote())
	if m.Snapshot != nil {
		s, err := marshalSnapshot.Marshal(m.Snapshot)
		if err != nil {
			return nil, fmt.Errorf("encode snapshot of raft message: %w", err)
		}
		b = appendBytes(b, s)
	}
	return b, nil
}

var marshalSnapshot = proto.MarshalOptions{Deterministic: true}

func appendNonZero(b []byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(b, v)
}

func appendBytes(b, p []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(p)))
	return append(b, p...)
}

var (
	errChecksum  = errors.New("checksum of the frame does not match: it was altered on its way")
	errTruncated = errors.New("frame ends within a message")
	errTrailing  = errors.New("message is longer than its content")
	errNumber    = errors.New("number is malformed or not in its shortest form")
	errZero      = errors.New("field is marked as present and is zero")
)

// decodeFrame appends the messages of a frame to messages, each of which passes Check. They alias frame, except for small
// pieces of a large frame, which are copied so that one late entry does not keep a megabyte alive.
func decodeFrame(messages []transport.Message, frame []byte) ([]transport.Message, error) {
	if len(frame) < checksumBytes {
		return nil, errTruncated
	}
	body := frame[checksumBytes:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(frame) {
		return nil, errChecksum
	}
	d := decoder{rest: body, frameBytes: len(frame), entries: maxFrameEntries}
	for len(d.rest) > 0 {
		if len(messages) == maxFrameMessages {
			return nil, fmt.Errorf("frame holds more than %d messages", maxFrameMessages)
		}
		m, err := d.message()
		if err == nil {
			err = m.Check()
		}
		if err != nil {
			return nil, fmt.Errorf("message %d of the frame: %w", len(messages), err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// decoder reads from rest; after the first error, everything it reads is zero.
type decoder struct {
	rest       []byte
	frameBytes int
	entries    uint64 // how many more the frame may hold
	err        error
}

func (d *decoder) message() (transport.Message, error) {
	content := d.bytes()
	if d.err != nil {
		return transport.Message{}, d.err
	}
	inner := decoder{rest: content, frameBytes: d.frameBytes, entries: d.entries}
	m := transport.Message{Kind: transport.Kind(inner.byte())}
	group := inner.uvarint()
	m.Group = uint32(group)
	m.FromReplica, m.ToReplica, m.ID = inner.uvarint(), inner.uvarint(), inner.uvarint()
	switch {
	case inner.err != nil:
		return m, inner.err
	case uint64(m.Group) != group:
		return m, fmt.Errorf("group %d is too large", group)
	case m.Kind != transport.KindRaft:
		if len(inner.rest) > 0 {
			m.Body = inner.keep(inner.rest)
		}
		return m, nil
	}
	m.Raft = inner.raft(m.FromReplica, m.ToReplica)
	if inner.err == nil && len(inner.rest) > 0 {
		inner.fail(errTrailing)
	}
	d.entries = inner.entries
	return m, inner.err
}

// raftFields holds what a Raft message points to, to allocate it in one piece.
type raftFields struct {
	message                                                  raftpb.Message
	kind                                                     raftpb.MessageType
	from, to, term, index, logTerm, commit, rejectHint, vote uint64
	reject                                                   bool
}

type entryFields struct {
	entry       raftpb.Entry
	kind        raftpb.EntryType
	term, index uint64
}

func (d *decoder) raft(from, to uint64) *raftpb.Message {
	kind, mask := d.int32(), d.uvarint()
	if mask >= maskEnd {
		d.fail(fmt.Errorf("raft message with unknown fields, mask %#x", mask))
	}
	present := func(bit uint64) uint64 {
		if mask&bit == 0 {
			return 0
		}
		return d.nonZero()
	}
	f := &raftFields{kind: raftpb.MessageType(kind), from: from, to: to, reject: mask&maskReject != 0}
	m := &f.message
	m.Type, m.From, m.To, m.Term, m.Index, m.LogTerm = &f.kind, &f.from, &f.to, &f.term, &f.index, &f.logTerm
	m.Commit, m.Reject, m.RejectHint, m.Vote = &f.commit, &f.reject, &f.rejectHint, &f.vote

	f.term, f.index, f.logTerm, f.commit = present(maskTerm), present(maskIndex), present(maskLogTerm), present(maskCommit)
	if mask&maskContext != 0 {
		if m.Context = d.keep(d.bytes()); len(m.Context) == 0 {
			d.fail(errZero)
		}
	}
	if mask&maskEntries != 0 {
		m.Entries = d.raftEntries()
	}
	f.rejectHint, f.vote = present(maskRejectHint), present(maskVote)
	if mask&maskSnapshot != 0 {
		m.Snapshot = d.snapshot()
	}
	return m
}

func (d *decoder) raftEntries() []*raftpb.Entry {
	count := d.nonZero()
	if count > d.entries || count > uint64(len(d.rest)/minEntryBytes) {
		d.fail(fmt.Errorf("%d entries in %d bytes, the frame may hold %d more", count, len(d.rest), d.entries))
	}
	if d.err != nil {
		return nil
	}
	d.entries -= count
	fields := make([]entryFields, count)
	entries := make([]*raftpb.Entry, count)
	for i := range fields {
		f := &fields[i]
		f.kind, f.term, f.index = raftpb.EntryType(d.int32()), d.uvarint(), d.uvarint()
		if _, known := raftpb.EntryType_name[int32(f.kind)]; !known {
			d.fail(fmt.Errorf("unknown entry type %d", f.kind))
		}
		e := &f.entry
		e.Type, e.Term, e.Index = &f.kind, &f.term, &f.index
		if data := d.bytes(); len(data) > 0 {
			e.Data = d.keep(data)
		}
		if d.err != nil {
			return nil
		}
		entries[i] = e
	}
	return entries
}

// snapshot also refuses protobuf that another encoder would write differently: what decodes encodes to the same bytes.
func (d *decoder) snapshot() *raftpb.Snapshot {
	encoded := d.bytes()
	if d.err != nil {
		return nil
	}
	s := &raftpb.Snapshot{}
	if err := proto.Unmarshal(encoded, s); err != nil {
		d.fail(fmt.Errorf("snapshot of raft message: %w", err))
		return nil
	}
	if again, err := marshalSnapshot.Marshal(s); err != nil || string(again) != string(encoded) {
		d.fail(errors.New("snapshot of raft message is not in the form we write"))
		return nil
	}
	return s
}

// keep returns p for a message that may live long.
func (d *decoder) keep(p []byte) []byte {
	if d.frameBytes > 64<<10 && len(p) < d.frameBytes/16 {
		return append([]byte(nil), p...)
	}
	return p[:len(p):len(p)]
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail(errTruncated)
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	switch {
	case n == 0:
		d.fail(errTruncated)
		return 0
	case n < 0, n > 1 && d.rest[n-1] == 0: // overflow, or a last byte that adds nothing
		d.fail(errNumber)
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) nonZero() uint64 {
	v := d.uvarint()
	if v == 0 {
		d.fail(errZero)
	}
	return v
}

// int32 reads the number of an enum.
func (d *decoder) int32() int32 {
	v := d.uvarint()
	if v > 1<<31-1 {
		d.fail(errNumber)
		return 0
	}
	return int32(v)
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail(errTruncated)
		return nil
	}
	p := d.rest[:n]
	d.rest = d.rest[n:]
	return p
}
