package replica

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"hanse/internal/hlc"
	"hanse/internal/shard"
	"hanse/internal/transport"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

type raftProgress = tracker.Progress

// group is the host's side of one replica.
type group struct {
	id         shard.ID
	replica    uint64
	worker     int // its applier
	raft       *raft.RawNode
	log        *groupLog
	membership membership
	// heard has the nodes of replicas that write to this one but are not in its membership: a new replica knows nobody.
	heard   []Replica
	heardAt map[uint64]uint64 // when the other members were heard of last, in the host's ticks
	active  bool              // to be looked at in the next turn
	retired bool              // no longer the host's
	blocked bool              // Raft took no proposal: not again before the next tick
	// preferred is the node that should lead, 0 for the one whose turn it is.
	preferred transport.NodeID
	// preferredWell counts looks at which the preferred replica could have led.
	preferredWell int

	// hard is the newest hard state; hardDirty says that it is not in a write yet.
	hard      hardState
	hardDirty bool
	// leader is the replica that leads, 0 when none is known; leadTerm the term in which this one does, or 0.
	leader   uint64
	isLeader bool
	leadTerm uint64
	// termBegun says that this replica leads and an entry of its term is committed.
	termBegun bool
	// unsettled says that the members have changed in this leadership, and that a majority may not know it after a crash: nobody has
	// been sent an entry since that tells how far is committed. Its own entry that does so is at settlesAt, once it is logged, and has a
	// tag above settlesAfter.
	unsettled    bool
	settlesAfter uint64
	settlesAt    uint64

	// queue waits to be proposed, proposed to be seen in the log, logged to be committed.
	queue      []proposal
	queueBytes int
	queueDue   int64 // when the first of the queue that does not wait for others has to be proposed
	proposed   []*batch
	logged     []*batch // by index

	// A Ready that waits for its write: the messages and committed entries that have to wait with it.
	held  bool
	ready raft.Ready
	late  []*pb.Message
	rest  []*pb.Entry

	// readQueue waits to be asked about, readAsked for Raft's answer, readWaiting for its index to be applied.
	readQueue, readAsked, readWaiting []*read
	readContext                       uint64

	// handed is the last index given to the applier, applied the last it has reported, with applyBytes between them.
	handed, applied uint64
	applyBytes      int
	// flushed is the index of the state that the applier has given to the store, durable that which survives a crash.
	flushed, durable uint64
	nextDue          hlc.Time
	tickProposed     bool
	truncating       bool

	changes   []pendingChange
	sending   *Sending
	receiving *Received
	retryAt   int64    // no snapshot before, ms
	unsent    []uint64 // replicas whose snapshot could not begin
}

// commandOverhead is what a command takes besides its payload and keys, roughly.
const commandOverhead = 40

// proposal is a command with the one who waits for it.
type proposal struct {
	command shard.Command
	size    int
	waiter
}

// enqueue queues a proposal that has to go into an entry at due, or earlier if another has to.
func (g *group) enqueue(p proposal, due int64) {
	if len(g.queue) == 0 {
		g.queueDue = due
	}
	g.queue = append(g.queue, p)
	g.queueBytes += p.size
	g.queueDue = min(g.queueDue, due)
}

// waiter waits for the answer to a command; wait says that it waits for what the command leaves pending, too.
type waiter struct {
	wait     bool
	deadline int64
	done     Done
}

// batch is those who wait for the commands of one entry. It passes from the host to the applier with the entry.
type batch struct {
	tag         uint64 // of the first command
	index, term uint64 // once it is logged
	deadline    int64  // the earliest
	waiters     []waiter
}

// fail answers all that still wait.
func (b *batch) fail(err error) {
	for i := range b.waiters {
		b.answer(i, shard.Result{}, err)
	}
}

func (b *batch) answer(i int, r shard.Result, err error) {
	if done := b.waiters[i].done; done != nil {
		b.waiters[i].done = nil
		done(r, err)
	}
}

// expire gives up proposals whose deadline has passed: they are in the log and may still be applied.
func (b *batch) expire(now int64) {
	if b.deadline > now {
		return
	}
	b.deadline = 1<<63 - 1
	for i := range b.waiters {
		if p := &b.waiters[i]; p.deadline <= now {
			b.answer(i, shard.Result{}, ErrOutcomeUnknown)
		} else {
			b.deadline = min(b.deadline, p.deadline)
		}
	}
}

type read struct {
	payload  []byte
	index    uint64
	deadline int64
	done     Done
}

func readContext(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func newGroup(cfg Config, s *stored) (*group, error) {
	g := &group{
		id: s.id, replica: s.replica, log: s.log, membership: s.applied.membership, hard: s.hard,
		handed: s.applied.index, applied: s.applied.index, flushed: s.applied.index, durable: s.applied.index,
		heardAt: make(map[uint64]uint64),
	}
	g.log.snapshot = g.snapshotMetadata
	var err error
	g.raft, err = raft.NewRawNode(&raft.Config{
		ID: s.replica, ElectionTick: cfg.ElectionTicks, HeartbeatTick: cfg.HeartbeatTicks,
		Storage: s.log, Applied: s.applied.index,
		MaxSizePerMsg: cfg.MaxMessageBytes, MaxCommittedSizePerReady: uint64(cfg.MaxApplyBytes),
		MaxUncommittedEntriesSize: cfg.MaxUncommittedBytes,
		MaxInflightMsgs:           cfg.MaxInflightMessages, MaxInflightBytes: cfg.MaxInflightBytes,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftLog{s.id},
	})
	if err != nil {
		return nil, fmt.Errorf("start replica %d of %s: %w", s.replica, s.id, err)
	}
	return g, nil
}

// node returns where a replica is, 0 when that is unknown.
func (g *group) node(replica uint64) transport.NodeID {
	if n := g.membership.node(replica); n != 0 {
		return n
	}
	for _, r := range g.heard {
		if r.ID == replica {
			return r.Node
		}
	}
	return 0
}

func (g *group) leads() bool { return g.leadTerm != 0 }

func (g *group) notLeader() error {
	e := &NotLeaderError{Shard: g.id, Term: g.hard.term}
	if g.leader != g.replica {
		e.Leader = g.membership.node(g.leader)
	}
	return e
}

// setMembership takes other members into force.
func (g *group) setMembership(m membership) {
	g.membership = m
	maps.DeleteFunc(g.heardAt, func(id, _ uint64) bool { return m.node(id) == 0 })
}

// preferredReplica is the one that leads while all is well: that of the preferred node, or each shard another in turn. It is 0 in a
// group without voters, and when the preferred node has none: then whoever leads goes on.
func (g *group) preferredReplica() uint64 {
	voters := slices.Sorted(slices.Values(g.membership.conf.Voters))
	if g.preferred != 0 {
		i := slices.IndexFunc(voters, func(id uint64) bool { return g.membership.node(id) == g.preferred })
		if i < 0 {
			return 0
		}
		return voters[i]
	}
	if len(voters) == 0 {
		return 0
	}
	return voters[g.id.Index()%len(voters)]
}

// raftLog is Raft's logger. What Raft reports is visible in states and counters; only its panics pass on.
type raftLog struct{ id shard.ID }

func (raftLog) Debug(...any)            {}
func (raftLog) Debugf(string, ...any)   {}
func (raftLog) Info(...any)             {}
func (raftLog) Infof(string, ...any)    {}
func (raftLog) Warning(...any)          {}
func (raftLog) Warningf(string, ...any) {}
func (raftLog) Error(...any)            {}
func (raftLog) Errorf(string, ...any)   {}

func (l raftLog) Fatal(v ...any)                 { l.Panic(v...) }
func (l raftLog) Fatalf(format string, v ...any) { l.Panicf(format, v...) }
func (l raftLog) Panic(v ...any)                 { panic(fmt.Sprintf("raft of %s: %s", l.id, fmt.Sprint(v...))) }
func (l raftLog) Panicf(format string, v ...any) {
	panic(fmt.Sprintf("raft of %s: %s", l.id, fmt.Sprintf(format, v...)))
}
