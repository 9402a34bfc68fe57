package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// A snapshot is a stream of chunks, messages of KindSnapshot with one ID:
//
//	chunk = 'd' | sequence | { key | value } ...      rows of s/, ascending, keys without the group's prefix
//	last  = 'e' | sequence | checksum of all rows 4 | term | applied state
//
// each acknowledged by 'a' | sequence, or refused by 'n' | reason, which ends the stream. The receiver stages the rows
// beside its state. When it has the last chunk it steps the MsgSnap that the stream stands for: only if Raft wants it
// does the staged state replace its own, in one commit. Raft accepts a snapshot that is newer than it asked for.
const (
	chunkRows = 'd'
	chunkLast = 'e'
	chunkAck  = 'a'
	chunkNo   = 'n'
)

const (
	// chunkBytes is when a chunk is closed, snapshotWindow how many may be on their way.
	chunkBytes     = 256 << 10
	snapshotWindow = 8
)

// Sending is a snapshot on its way to a replica that lags. The executor takes chunks from Next while the window allows.
type Sending struct {
	Group       shard.ID
	To          transport.NodeID
	replica     uint64 // ours
	toReplica   uint64
	id          uint64
	term        uint64
	state       appliedState
	snapshot    store.Snapshot
	rows        store.Iterator
	more, ended bool
	sequence    uint64
	sum         uint32
}

// startSnapshot begins the stream that a MsgSnap asks for, unless one is under way on this node.
func (h *Host) startSnapshot(g *group, m *pb.Message) {
	to := g.membership.node(m.GetTo())
	busy := to == 0 || h.now < g.retryAt
	for _, other := range h.order {
		busy = busy || other.sending != nil
	}
	if busy {
		g.unsent = append(g.unsent, m.GetTo())
		return
	}
	h.streams++
	g.sending = &Sending{
		Group: g.id, To: to, replica: g.replica, toReplica: m.GetTo(), term: m.GetTerm(),
		id: h.cfg.Process + h.streams,
	}
	h.task(g, &Task{kind: taskFreeze, sending: g.sending})
}

// SnapshotSent ends a stream: whether the receiver has taken it.
func (h *Host) SnapshotSent(s *Sending, ok bool) {
	g := h.groups[s.Group]
	if g == nil || g.sending != s {
		return
	}
	g.sending = nil
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
		g.retryAt = h.now + h.cfg.SnapshotPause.Milliseconds()
	}
	// Without this word Raft would send the follower nothing, for ever.
	g.raft.ReportSnapshot(s.toReplica, status)
	h.touch(g)
}

// reportUnsent tells Raft, at the next tick, about snapshots that could not begin: it asks again later.
func (g *group) reportUnsent() {
	for _, to := range g.unsent {
		g.raft.ReportSnapshot(to, raft.SnapshotFailure)
	}
	g.unsent = g.unsent[:0]
}

// frozen is called by the applier with the state at an applied index.
func (s *Sending) frozen(snapshot store.Snapshot, state appliedState) {
	s.snapshot, s.state = snapshot, state
}

// Next returns the next chunk, nil after the last.
func (s *Sending) Next() (*transport.Message, error) {
	if s.ended {
		return nil, nil
	}
	if s.rows == nil {
		var err error
		if s.rows, err = s.snapshot.Iter(statePrefix(s.Group), stateEnd(s.Group)); err != nil {
			return nil, fmt.Errorf("read snapshot of %s: %w", s.Group, err)
		}
		s.more = s.rows.Next()
	}
	body := []byte{chunkRows}
	if s.more {
		body = slices.Grow(body, chunkBytes+chunkBytes/8) // little by little, it would be copied and paged in many times
	}
	body = binary.AppendUvarint(body, s.sequence)
	head := len(body)
	skip := len(groupKey(s.Group, ""))
	for s.more && len(body) < chunkBytes {
		key := s.rows.Key()[skip:]
		body = binary.AppendUvarint(body, uint64(len(key)))
		body = append(body, key...)
		body = binary.AppendUvarint(body, uint64(len(s.rows.Value())))
		body = append(body, s.rows.Value()...)
		s.more = s.rows.Next()
	}
	if len(body) == head {
		body[0] = chunkLast
		s.ended = true
		body = binary.LittleEndian.AppendUint32(body, s.sum)
		body = binary.AppendUvarint(body, s.term)
		body = append(body, s.state.content()...)
	} else {
		s.sum = crc32.Update(s.sum, castagnoli, body[head:])
	}
	s.sequence++
	return &transport.Message{
		Kind: transport.KindSnapshot, Group: uint32(s.Group), FromReplica: s.replica, ToReplica: s.toReplica, ID: s.id, Body: body,
	}, nil
}

// Close releases the store's snapshot.
func (s *Sending) Close() error {
	var err error
	if s.rows != nil {
		err = s.rows.Close()
	}
	if s.snapshot != nil {
		err = errors.Join(err, s.snapshot.Close())
	}
	s.rows, s.snapshot = nil, nil
	return err
}

// Answer reads what the receiver says to a chunk: its sequence, or why it refuses the stream.
func (s *Sending) Answer(m *transport.Message) (sequence uint64, mine bool, err error) {
	if m.ID != s.id || shard.ID(m.Group) != s.Group || len(m.Body) == 0 {
		return 0, false, nil
	}
	switch m.Body[0] {
	case chunkAck:
		d := fields{rest: m.Body[1:]}
		sequence = d.uvarint()
		return sequence, !d.bad, nil
	case chunkNo:
		return 0, true, fmt.Errorf("snapshot of %s refused by node %d: %s", s.Group, s.To, m.Body[1:])
	}
	return 0, false, nil
}

// Received is a snapshot that arrives. It stages rows until the last has come.
type Received struct {
	group    shard.ID
	from     transport.NodeID
	replica  uint64 // ours
	sender   uint64
	id       uint64
	next     uint64
	sum      uint32
	staged   store.Replacement
	state    appliedState
	term     uint64
	complete bool
	// stepped says that Raft has been told, installing that it wants it.
	stepped, installing bool
}

// Receiver stages the streams that come to a node.
type Receiver struct {
	engine  store.Engine
	streams map[shard.ID]*Received
}

// NewReceiver returns a receiver without streams.
func NewReceiver(e store.Engine) *Receiver {
	return &Receiver{engine: e, streams: make(map[shard.ID]*Received)}
}

// Chunk takes a chunk and returns the answer to it, and the stream once it is complete.
func (r *Receiver) Chunk(from transport.NodeID, m *transport.Message) (answer []byte, complete *Received) {
	s, err := r.take(from, m)
	if err != nil {
		if s != nil {
			s.staged.Abort()
			delete(r.streams, s.group)
		}
		return append([]byte{chunkNo}, err.Error()...), nil
	}
	if s.complete {
		delete(r.streams, s.group)
		complete = s
	}
	return binary.AppendUvarint([]byte{chunkAck}, s.next-1), complete
}

func (r *Receiver) take(from transport.NodeID, m *transport.Message) (*Received, error) {
	group := shard.ID(m.Group)
	d := fields{rest: m.Body[1:]}
	sequence := d.uvarint()
	s := r.streams[group]
	if sequence == 0 && (s == nil || s.id != m.ID) {
		if s != nil {
			s.staged.Abort() // its sender has given up
		}
		lo, hi := groupSpan(group)
		staged, err := r.engine.Replace(lo, hi)
		if err != nil {
			return nil, fmt.Errorf("stage: %w", err)
		}
		s = &Received{group: group, from: from, replica: m.ToReplica, sender: m.FromReplica, id: m.ID, staged: staged}
		r.streams[group] = s
	}
	switch {
	case s == nil || s.id != m.ID || s.from != from:
		return nil, errors.New("the stream's beginning is missing")
	case d.bad || sequence != s.next:
		return s, fmt.Errorf("chunk %d came where %d was due", sequence, s.next)
	}
	s.next++
	if m.Body[0] == chunkLast {
		return s, s.last(d.rest)
	}
	s.sum = crc32.Update(s.sum, castagnoli, d.rest)
	for len(d.rest) > 0 && !d.bad {
		key := d.bytes()
		value := d.bytes()
		if d.bad {
			break
		}
		if err := s.staged.Add(groupKey(group, string(key)), value); err != nil {
			return s, fmt.Errorf("stage row: %w", err)
		}
	}
	if d.bad {
		return s, errors.New("rows are malformed")
	}
	return s, nil
}

func (s *Received) last(rest []byte) error {
	if len(rest) < 4 || binary.LittleEndian.Uint32(rest) != s.sum {
		return errors.New("checksum of the rows does not match")
	}
	d := fields{rest: rest[4:]}
	s.term = d.uvarint()
	if d.bad {
		return errors.New("term is malformed")
	}
	var reason string
	if s.state, reason = decodeAppliedContent(d.rest); reason != "" {
		return errors.New(reason)
	}
	s.complete = true
	return nil
}

// Abort drops all streams that have not come to their end.
func (r *Receiver) Abort() {
	for _, s := range r.streams { // in any order: they are independent
		s.staged.Abort()
	}
	clear(r.streams)
}

// Staged hands a complete stream to the host, which offers it to Raft as soon as the replica writes nothing.
func (h *Host) Staged(s *Received) {
	g := h.groups[s.group]
	if g == nil || g.receiving != nil || s.replica != g.replica {
		s.staged.Abort()
		return
	}
	g.receiving = s
	g.offer()
	h.offered = append(h.offered, g)
	h.touch(g)
}

// offer tells Raft of the snapshot that has come. Raft takes over its members at once; a change of members that is being written and is applied
// after that would be made to the wrong ones (found by the simulator, seed 656909553366). So nothing may be under way.
func (g *group) offer() {
	s := g.receiving
	if s == nil || s.stepped || g.held {
		return
	}
	s.stepped = true
	_ = g.raft.Step(&pb.Message{
		Type: pb.MsgSnap.Enum(), From: new(s.sender), To: new(g.replica), Term: new(s.term),
		Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
			Index: new(s.state.index), Term: new(s.state.term), ConfState: s.state.conf,
		}},
	})
}

// dropRefused forgets streams that Raft did not want: it has what they bring, or follows another leader.
func (h *Host) dropRefused() {
	kept := h.offered[:0]
	for _, g := range h.offered {
		switch {
		case g.receiving == nil || g.receiving.installing:
		case g.held:
			kept = append(kept, g) // Raft has not been asked, or its answer is in the next Ready
		default:
			g.receiving.staged.Abort()
			g.receiving = nil
		}
	}
	h.offered = kept
}

// beginInstall replaces the state by the staged one: first the machine is dropped, so that it does not flush into it.
func (h *Host) beginInstall(g *group, snap *pb.Snapshot) {
	if g.receiving == nil || g.receiving.state.index != snap.GetMetadata().GetIndex() {
		panic(fmt.Sprintf("replica %s: Raft wants snapshot %d, which was not offered", g.id, snap.GetMetadata().GetIndex()))
	}
	g.receiving.installing = true
	h.task(g, &Task{kind: taskStop})
}

// install is called when the machine is gone: the write that replaces the state can go. Entries that the leader has sent
// after the snapshot may have come in the same Ready.
func (h *Host) install(g *group) {
	g.hardDirty = false
	h.next.Sync = true
	h.next.ops = append(h.next.ops, writeOp{group: g, ready: true, install: g.receiving, entries: g.ready.Entries, hard: g.hard})
	h.touch(g)
}

// commit replaces the group's span by what was staged and the records that go with it.
func (s *Received) commit(hard hardState) error {
	for _, row := range []struct{ key, value []byte }{
		{appliedKey(s.group), s.state.encode(appliedKey(s.group))},
		{hardKey(s.group), encodeHard(hardKey(s.group), s.replica, hard)},
		{truncKey(s.group), encodePosition(truncKey(s.group), s.state.position)},
	} {
		if err := s.staged.Add(row.key, row.value); err != nil {
			return fmt.Errorf("install snapshot of %s at %d: %w", s.group, s.state.index, err)
		}
	}
	if err := s.staged.Commit(); err != nil {
		return fmt.Errorf("install snapshot of %s at %d: %w", s.group, s.state.index, err)
	}
	return nil
}

// installed takes the new state into force.
func (h *Host) installed(g *group, s *Received) {
	g.receiving = nil
	g.log.reset(s.state.position)
	g.setMembership(s.state.membership)
	g.heard = nil
	g.handed, g.applied, g.flushed, g.durable = s.state.index, s.state.index, s.state.index, s.state.index
	g.applyBytes = 0
	for _, b := range g.logged {
		b.fail(ErrOutcomeUnknown)
	}
	g.logged = nil
	h.clock.See(s.state.time)
	h.task(g, &Task{kind: taskOpen})
}

// snapshotMetadata answers Raft's wish for a snapshot; the stream brings a state at least as new.
func (g *group) snapshotMetadata() (*pb.Snapshot, error) {
	if g.applied < g.log.trunc.index || g.applied > g.log.last() {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
		Index: new(g.applied), Term: new(g.log.term(g.applied)), ConfState: g.membership.conf,
	}}, nil
}
