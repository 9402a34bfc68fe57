package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// bootstrapped is where the log of a new group begins: after this position, at which its state is
// empty. An index above 1 makes members that join later ask for a snapshot, which brings them the membership;
// nobody has to call Raft's own bootstrap.
var bootstrapped = position{index: 10, term: 5}

// Bootstrap writes, in one synced batch, the first state of every group that has a replica on node
// self. All members of a group have to be given the same list. It refuses a store that holds replicas already.
func Bootstrap(e store.Engine, groups map[shard.ID][]Replica, self transport.NodeID) error {
	b := e.NewBatch()
	defer b.Close()
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		members := slices.SortedFunc(slices.Values(groups[id]), func(a, b Replica) int { return int(a.ID) - int(b.ID) })
		own := slices.IndexFunc(members, func(r Replica) bool { return r.Node == self })
		if own < 0 {
			continue
		}
		nodes := make(map[transport.NodeID]bool)
		conf := &pb.ConfState{AutoLeave: new(false)}
		for i, r := range members {
			if r.ID == 0 || r.Node == 0 || nodes[r.Node] || i > 0 && members[i-1].ID == r.ID {
				return fmt.Errorf("bootstrap %s: replicas %v: want distinct numbers from 1 on distinct nodes", id, members)
			}
			nodes[r.Node] = true
			conf.Voters = append(conf.Voters, r.ID)
		}
		if _, err := e.Get(nodeKey(replicaPrefix, id)); err == nil {
			return fmt.Errorf("bootstrap %s: this store holds a replica of it already", id)
		} else if !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("bootstrap %s: %w", id, err)
		}
		a := appliedState{position: bootstrapped, membership: membership{conf, members}}
		writeNewReplica(b, id, members[own].ID, &a)
	}
	if err := e.Apply(b, true); err != nil {
		return fmt.Errorf("bootstrap %d groups: %w", len(groups), err)
	}
	return nil
}

// writeNewReplica writes all records of a replica that begins at a with an empty log.
func writeNewReplica(b store.Batch, id shard.ID, replica uint64, a *appliedState) {
	key := nodeKey(replicaPrefix, id)
	b.Set(key, encodeNumber(key, replica))
	key = appliedKey(id)
	b.Set(key, a.encode(key))
	key = hardKey(id)
	b.Set(key, encodeHard(key, replica, hardState{term: a.term, commit: a.index}))
	key = truncKey(id)
	b.Set(key, encodePosition(key, a.position))
}

// stored is what a restart finds of one replica.
type stored struct {
	id      shard.ID
	replica uint64
	hard    hardState
	applied appliedState
	log     *groupLog
}

// loadReplicas reads all replicas of the node, in the order of their groups.
func loadReplicas(r store.Reader, cacheBytes int) ([]*stored, error) {
	var all []*stored
	it, err := r.Iter([]byte(replicaPrefix), []byte("n/replica0"))
	if err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	for it.Next() {
		key := it.Key()
		if len(key) != len(replicaPrefix)+4 {
			return nil, errors.Join(fmt.Errorf("list replicas: key %q is malformed", key), it.Close())
		}
		s := &stored{id: shard.ID(binary.BigEndian.Uint32(key[len(replicaPrefix):]))}
		var reason string
		if s.replica, reason = decodeNumber(key, it.Value()); reason != "" {
			return nil, errors.Join(&CorruptError{s.id, 0, "replica number: " + reason}, it.Close())
		}
		all = append(all, s)
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	for _, s := range all {
		if err := s.load(r, cacheBytes); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// load reads and checks one replica. Whatever a crash can leave behind is accepted: the hard state's commit index
// is not synced on its own and may lie behind the applied index.
func (s *stored) load(r store.Reader, cacheBytes int) error {
	record := func(key []byte) ([]byte, error) {
		v, err := r.Get(key)
		if errors.Is(err, store.ErrNotFound) {
			return nil, &CorruptError{s.id, 0, fmt.Sprintf("record %q is missing", key[7:])}
		}
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", s.id, err)
		}
		return v, nil
	}
	var trunc position
	for _, part := range []struct {
		key  []byte
		read func(key, record []byte) string
	}{
		{hardKey(s.id), func(k, v []byte) (reason string) { s.hard, reason = decodeHard(k, s.replica, v); return }},
		{truncKey(s.id), func(k, v []byte) (reason string) { trunc, reason = decodePosition(k, v); return }},
		{appliedKey(s.id), func(k, v []byte) (reason string) { s.applied, reason = decodeApplied(k, v); return }},
	} {
		v, err := record(part.key)
		if err != nil {
			return err
		}
		if reason := part.read(part.key, v); reason != "" {
			return &CorruptError{s.id, 0, string(part.key[7:]) + ": " + reason}
		}
	}
	s.log = &groupLog{id: s.id, replica: s.replica, reader: r, limit: cacheBytes, trunc: trunc}
	if err := s.scan(r); err != nil {
		return err
	}
	last := s.log.last()
	if s.applied.index < trunc.index || s.applied.index > last {
		return &CorruptError{s.id, s.applied.index, fmt.Sprintf("state is at an index outside of the log %d..%d", trunc.index, last)}
	}
	s.hard.commit = max(s.hard.commit, s.applied.index)
	if s.hard.commit > last {
		return &CorruptError{s.id, s.hard.commit, fmt.Sprintf("entry was committed, but the log ends at %d", last)}
	}
	s.log.initialHard, s.log.initialConf = s.hard, s.applied.conf
	return nil
}

// scan reads the whole log: each entry has to be sound and to follow the one before.
func (s *stored) scan(r store.Reader) error {
	it, err := r.Iter(groupKey(s.id, "l/"), groupKey(s.id, "l0"))
	if err != nil {
		return fmt.Errorf("scan log of %s: %w", s.id, err)
	}
	index := s.log.trunc.index
	var bad error
	for it.Next() {
		index++
		key := logKey(s.id, index)
		if string(it.Key()) != string(key) {
			found := it.Key()
			bad = &CorruptError{s.id, index, fmt.Sprintf("entry is missing, the next is %d", binary.BigEndian.Uint64(found[len(found)-8:]))}
			break
		}
		e, reason := decodeEntry(key, index, s.replica, slices.Clone(it.Value()))
		if reason == "" && e.GetTerm() < s.log.term(index-1) {
			reason = fmt.Sprintf("term %d is below its predecessor's", e.GetTerm())
		}
		if reason != "" {
			bad = &CorruptError{s.id, index, reason}
			break
		}
		s.log.append([]*pb.Entry{e})
	}
	if err := errors.Join(it.Close(), bad); err != nil {
		return fmt.Errorf("scan log of %s: %w", s.id, err)
	}
	return nil
}

// tombstone returns the lowest number that a new replica of id may have on this node.
func tombstone(r store.Reader, id shard.ID) (uint64, error) {
	key := nodeKey(tombstonePrefix, id)
	v, err := r.Get(key)
	if errors.Is(err, store.ErrNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read tombstone of %s: %w", id, err)
	}
	n, reason := decodeNumber(key, v)
	if reason != "" {
		return 0, &CorruptError{id, 0, "tombstone: " + reason}
	}
	return n, nil
}
