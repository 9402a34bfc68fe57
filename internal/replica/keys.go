package replica

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"hanse/internal/hlc"
	"hanse/internal/shard"
	"hanse/internal/transport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// The keys of a node, integers big-endian, so that one span is one replica:
//
//	n/...                  the node: n/ident belongs to the node itself
//	n/replica/<group>      number of this node's replica
//	n/tombstone/<group>    lowest number that a later replica may have
//	g/<group>/l/<index>    log entry
//	g/<group>/s/...        state: what Machine.Flush writes
//	g/<group>/t/applied    applied index and membership, written with the state
//	g/<group>/t/hard       hard state
//	g/<group>/t/trunc      index and term of the last entry that was truncated
//
// t sorts after s, so that a snapshot can be staged in key order and its head be decided last.
const (
	replicaPrefix   = "n/replica/"
	tombstonePrefix = "n/tombstone/"
)

// recordVersion begins every record. A reader refuses versions it does not know.
const recordVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func groupKey(id shard.ID, suffix string) []byte {
	k := make([]byte, 0, 7+len(suffix))
	k = append(k, "g/"...)
	k = binary.BigEndian.AppendUint32(k, uint32(id))
	k = append(k, '/')
	return append(k, suffix...)
}

// groupSpan returns the bounds of everything a replica stores.
func groupSpan(id shard.ID) (lo, hi []byte) {
	lo = groupKey(id, "")
	hi = slices.Clone(lo)
	hi[len(hi)-1]++
	return lo, hi
}

func statePrefix(id shard.ID) []byte { return groupKey(id, "s/") }
func stateEnd(id shard.ID) []byte    { return groupKey(id, "s0") } // '0' follows '/'
func appliedKey(id shard.ID) []byte  { return groupKey(id, "t/applied") }
func hardKey(id shard.ID) []byte     { return groupKey(id, "t/hard") }
func truncKey(id shard.ID) []byte    { return groupKey(id, "t/trunc") }

func logKey(id shard.ID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(groupKey(id, "l/"), index)
}

func nodeKey(prefix string, id shard.ID) []byte {
	return binary.BigEndian.AppendUint32([]byte(prefix), uint32(id))
}

// seal appends the checksum of key and record to record. The key is included so that a record that
// was written to, or read from, the wrong place does not pass.
func seal(key, record []byte) []byte {
	return binary.LittleEndian.AppendUint32(record, checksum(key, record))
}

func checksum(key, record []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, record)
}

// unseal checks what seal did and returns the content after the version.
func unseal(key, record []byte) (content []byte, reason string) {
	n := len(record) - 4
	if n < 1 {
		return nil, "record is cut short"
	}
	if binary.LittleEndian.Uint32(record[n:]) != checksum(key, record[:n]) {
		return nil, "checksum does not match"
	}
	if record[0] != recordVersion {
		return nil, "record version is unknown"
	}
	return record[1:n], ""
}

// entryOverhead is what an entry takes besides its data: version, term, type, replica, checksum.
const entryOverhead = 1 + 8 + 1 + 8 + 4

func encodeEntry(dst, key []byte, replica uint64, e *pb.Entry) []byte {
	dst = append(dst, recordVersion)
	dst = binary.LittleEndian.AppendUint64(dst, e.GetTerm())
	dst = append(dst, byte(e.GetType()))
	dst = binary.LittleEndian.AppendUint64(dst, replica)
	dst = append(dst, e.Data...)
	return seal(key, dst)
}

// decodeEntry reads an entry; its data aliases record. reason is empty when it is sound.
func decodeEntry(key []byte, index, replica uint64, record []byte) (e *pb.Entry, reason string) {
	b, reason := unseal(key, record)
	switch {
	case reason != "":
		return nil, reason
	case len(b) < 17:
		return nil, "entry is cut short"
	case binary.LittleEndian.Uint64(b[9:]) != replica:
		return nil, "entry belongs to another replica"
	}
	kind := pb.EntryType(b[8])
	if kind != pb.EntryNormal && kind != pb.EntryConfChange && kind != pb.EntryConfChangeV2 {
		return nil, "entry type is unknown"
	}
	e = &pb.Entry{Index: new(index), Term: new(binary.LittleEndian.Uint64(b)), Type: kind.Enum()}
	if len(b) > 17 {
		e.Data = b[17:]
	}
	return e, ""
}

// hardState is Raft's hard state; a value, unlike Raft's own type.
type hardState struct{ term, vote, commit uint64 }

func (h hardState) proto() *pb.HardState {
	return &pb.HardState{Term: new(h.term), Vote: new(h.vote), Commit: new(h.commit)}
}

func encodeHard(key []byte, replica uint64, h hardState) []byte {
	dst := []byte{recordVersion}
	for _, v := range [...]uint64{replica, h.term, h.vote, h.commit} {
		dst = binary.AppendUvarint(dst, v)
	}
	return seal(key, dst)
}

func decodeHard(key []byte, replica uint64, record []byte) (h hardState, reason string) {
	b, reason := unseal(key, record)
	if reason != "" {
		return h, reason
	}
	d := fields{rest: b}
	owner := d.uvarint()
	h = hardState{term: d.uvarint(), vote: d.uvarint(), commit: d.uvarint()}
	if !d.end() {
		return h, "hard state is malformed"
	}
	if owner != replica {
		return h, "hard state belongs to another replica"
	}
	return h, ""
}

// position is an index with its term.
type position struct{ index, term uint64 }

func encodePosition(key []byte, p position) []byte {
	dst := binary.AppendUvarint([]byte{recordVersion}, p.index)
	return seal(key, binary.AppendUvarint(dst, p.term))
}

func decodePosition(key, record []byte) (p position, reason string) {
	b, reason := unseal(key, record)
	if reason != "" {
		return p, reason
	}
	d := fields{rest: b}
	p = position{d.uvarint(), d.uvarint()}
	if !d.end() {
		return p, "position is malformed"
	}
	return p, ""
}

func encodeNumber(key []byte, n uint64) []byte {
	return seal(key, binary.AppendUvarint([]byte{recordVersion}, n))
}

func decodeNumber(key, record []byte) (n uint64, reason string) {
	b, reason := unseal(key, record)
	if reason != "" {
		return 0, reason
	}
	d := fields{rest: b}
	if n = d.uvarint(); !d.end() {
		return 0, "number is malformed"
	}
	return n, ""
}

// Replica is one copy of a shard: its number within the group, which is never reused, and its node.
type Replica struct {
	ID   uint64
	Node transport.NodeID
}

// membership is who belongs to a group. It is immutable once made.
type membership struct {
	conf *pb.ConfState
	// replicas lists the nodes of all members, by number.
	replicas []Replica
}

// node returns where replica id is, 0 when that is unknown.
func (m *membership) node(id uint64) transport.NodeID {
	for _, r := range m.replicas {
		if r.ID == id {
			return r.Node
		}
	}
	return 0
}

func (m *membership) members() []uint64 {
	return slices.Concat(m.conf.Voters, m.conf.VotersOutgoing, m.conf.Learners, m.conf.LearnersNext)
}

func (m *membership) contains(id uint64) bool { return slices.Contains(m.members(), id) }

// appliedState is the record that is written with the state: where it stands, and who the members
// are there. ConfState and index are never apart, or a restart could count votes in the wrong configuration.
type appliedState struct {
	position
	time hlc.Time
	membership
}

func (a *appliedState) encode(key []byte) []byte { return seal(key, a.content()) }

func (a *appliedState) content() []byte {
	dst := binary.AppendUvarint([]byte{recordVersion}, a.index)
	dst = binary.AppendUvarint(dst, a.term)
	dst = binary.AppendUvarint(dst, uint64(a.time))
	for _, list := range [...][]uint64{a.conf.Voters, a.conf.Learners, a.conf.VotersOutgoing, a.conf.LearnersNext} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for _, id := range list {
			dst = binary.AppendUvarint(dst, id)
		}
	}
	leave := byte(0)
	if a.conf.GetAutoLeave() {
		leave = 1
	}
	dst = append(dst, leave)
	dst = binary.AppendUvarint(dst, uint64(len(a.replicas)))
	for _, r := range a.replicas {
		dst = binary.AppendUvarint(dst, r.ID)
		dst = binary.AppendUvarint(dst, uint64(r.Node))
	}
	return dst
}

func decodeApplied(key, record []byte) (a appliedState, reason string) {
	b, reason := unseal(key, record)
	if reason != "" {
		return a, reason
	}
	return decodeAppliedFields(b)
}

// decodeAppliedContent reads what content wrote, which has no checksum of its own.
func decodeAppliedContent(b []byte) (a appliedState, reason string) {
	if len(b) == 0 || b[0] != recordVersion {
		return a, "record version is unknown"
	}
	return decodeAppliedFields(b[1:])
}

func decodeAppliedFields(b []byte) (a appliedState, reason string) {
	d := fields{rest: b}
	a.index, a.term, a.time = d.uvarint(), d.uvarint(), hlc.Time(d.uvarint())
	a.conf = &pb.ConfState{Voters: d.list(), Learners: d.list(), VotersOutgoing: d.list(), LearnersNext: d.list()}
	leave := d.byte()
	a.conf.AutoLeave = new(leave == 1)
	for range d.count() {
		a.replicas = append(a.replicas, Replica{d.uvarint(), transport.NodeID(d.uvarint())})
	}
	if !d.end() || leave > 1 {
		return appliedState{}, "applied state is malformed"
	}
	return a, ""
}

// fields reads integers from the front of rest. After a malformed one bad is set and all others are 0.
type fields struct {
	rest []byte
	bad  bool
}

func (d *fields) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 { // the shortest encoding only: one value, one record
		d.rest, d.bad = nil, true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *fields) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

// bytes reads a length and that many bytes, which alias the input.
func (d *fields) bytes() []byte {
	n := d.count()
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// count reads a length of things that take at least a byte each.
func (d *fields) count() int {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.rest, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *fields) list() []uint64 {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = d.uvarint()
	}
	return list
}

func (d *fields) end() bool { return !d.bad && len(d.rest) == 0 }
