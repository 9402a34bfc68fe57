package replica

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hanse/internal/clock"
	"hanse/internal/hlc"
	"hanse/internal/invariant"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Done takes the answer to a request, once. It is called by whoever drives the replicas and must not block.
type Done = func(shard.Result, error)

// Outgoing is a message for a node.
type Outgoing struct {
	To      transport.NodeID
	Class   transport.Class
	Message transport.Message
}

// Output is what a turn of the host wants done. The executor sends Messages at once; applies Write, in which no
// other may be in flight, and reports with Written; hands each task to its group's applier, in order, and
// passes on the reports. The slices are the executor's.
type Output struct {
	Messages []Outgoing
	Write    *Write
	Tasks    []*Task
}

// Host is the step machine of all replicas of a node. Inputs are method calls, which are cheap and do no
// I/O; Turn acts on them and returns what is to be done. It has one caller at a time, no goroutines and no clock.
//
//	Tick, Receive, Propose, Read, Written, Reported ──▶ Host ── Turn ──▶ messages, one write, tasks
type Host struct {
	cfg     Config
	engine  store.Reader
	groups  map[shard.ID]*group
	order   []*group // by ID: meta first
	active  []*group // to be looked at in the next turn
	clock   hlc.Clock
	now     int64 // ms on the clock that cannot jump: deadlines and pauses
	wall    int64 // ms since 1970 as the system clock shows: the log's time
	ticks   uint64
	tags    uint64
	reads   uint64
	streams uint64 // snapshots sent

	inFlight     *Write
	flightTime   int // ticks that inFlight has been away
	next         *Write
	sinceSync    int   // ticks since a synced write was handed out
	refused      int64 // when a queue was full last, on now; 0 for never
	scratch      []byte
	scratchTicks []uint64
	commands     []shard.Command
	offered      []*group // snapshots offered to Raft
	// pending has what follows when the machine of a replica that is being removed or renumbered is gone; nothing follows for one
	// that is being made.
	pending map[shard.ID]func()
	prefer  map[shard.ID]transport.NodeID
	broken  error
	out     Output
}

// Load makes the host and the appliers of the replicas that a node has stored, as many appliers as Config.ApplyWorkers.
func Load(cfg Config, e store.Engine, open shard.Opener, o Observer) (*Host, []*Applier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	replicas, err := loadReplicas(e, cfg.CacheBytes)
	if err != nil {
		return nil, nil, err
	}
	h := &Host{
		cfg: cfg, engine: e, groups: make(map[shard.ID]*group), next: new(Write),
		pending: make(map[shard.ID]func()), prefer: make(map[shard.ID]transport.NodeID),
	}
	appliers := make([]*Applier, cfg.ApplyWorkers)
	for i := range appliers {
		appliers[i] = newApplier(cfg, e, open, o)
	}
	for i, s := range replicas {
		g, err := newGroup(cfg, s)
		if err != nil {
			return nil, nil, err
		}
		g.worker = i % len(appliers)
		if err := appliers[g.worker].add(s); err != nil {
			return nil, nil, err
		}
		h.groups[s.id] = g
		h.order = append(h.order, g)
		h.clock.See(s.applied.time)
	}
	slices.SortFunc(h.order, func(a, b *group) int { return cmp.Compare(a.id, b.id) })
	return h, appliers, nil
}

// touch has a group looked at in the next turn.
func (h *Host) touch(g *group) {
	if !g.active && !g.retired {
		g.active = true
		h.active = append(h.active, g)
	}
}

// Tick says that Config.TickInterval has passed.
func (h *Host) Tick() {
	h.ticks++
	h.sinceSync++
	if h.inFlight != nil {
		h.flightTime++
	}
	slow := h.inTicks(h.cfg.SlowDisk)
	for _, g := range h.order {
		if h.cfg.PreferLeaders && h.ticks%preferTicks == 0 {
			h.giveBack(g)
		}
		g.raft.Tick()
		h.touch(g)
		if g.leads() && h.silence(g) == resignTicks(h.cfg.ElectionTicks) {
			h.resign(g)
		}
		g.blocked = false
		g.reportUnsent()
		if h.cfg.PreferLeaders && h.ticks == preferredTick && g.leader == 0 && g.preferredReplica() == g.replica {
			_ = g.raft.Campaign() // an error means that an election is not possible yet: the timeout brings the next
		}
		if h.ticks%sweepTicks == 0 {
			h.sweep(g)
		}
		h.proposeTick(g)
		if h.ticks%truncateTicks == 0 {
			h.truncate(g)
		}
		if h.flightTime > 0 && h.flightTime%slow == 0 && g.leads() {
			h.giveAway(g)
		}
	}
	if h.sinceSync >= h.inTicks(h.cfg.IdleSync) && slices.ContainsFunc(h.order, func(g *group) bool { return g.flushed > g.durable }) {
		h.syncIdle()
	}
}

const (
	// preferredTick is when preferred replicas campaign after a start, unless a leader has been heard of by then.
	preferredTick = 4
	// sweepTicks and truncateTicks are the times between looks at deadlines and at the log's length.
	sweepTicks = 2
	// preferTicks is the time between looks at whether the preferred replica could lead again, and it has to be so
	// preferLooks times in a row: one that comes and goes does not get the leadership each time.
	preferTicks   = 20
	preferLooks   = 3
	truncateTicks = 4
)

// resignTicks is how long a leader hears of no majority before it has another one campaign: 0.8 of the shortest election timeout, so that no
// follower is about to campaign by itself, and more than a pause of all others that is none.
func resignTicks(electionTicks int) uint64 { return uint64(max(1, electionTicks*4/5)) }

func (h *Host) inTicks(d time.Duration) int { return max(1, int(d/h.cfg.TickInterval)) }

// Broken returns why the node must not go on, nil while it may: an [OldCopyError], or a recovery that failed half way. The
// executor looks before each turn.
func (h *Host) Broken() error { return h.broken }

// DiskStalled reports whether the write in flight has been away for longer than Config.DeadDisk.
func (h *Host) DiskStalled() bool { return h.flightTime > h.inTicks(h.cfg.DeadDisk) }

// WriteAge returns how long the write in flight has been away, in whole ticks; 0 when there is none.
func (h *Host) WriteAge() time.Duration {
	if h.inFlight == nil {
		return 0
	}
	return time.Duration(h.flightTime) * h.cfg.TickInterval
}

// syncIdle syncs flushed state for which no other write has come along.
func (h *Host) syncIdle() {
	if h.inFlight != nil || h.next.Sync {
		return
	}
	h.next.Sync = true
	forced := false
	for _, g := range h.order {
		if g.hardDirty || !forced {
			forced = true
			h.next.ops = append(h.next.ops, writeOp{group: g, hard: g.hard, writeHard: true})
			g.hardDirty = false
		}
	}
}

// Receive takes messages of classes Raft and Bulk from another node.
func (h *Host) Receive(from transport.NodeID, messages []transport.Message) {
	for i := range messages {
		m := &messages[i]
		g := h.groups[shard.ID(m.Group)]
		if g == nil || m.Kind != transport.KindRaft || m.ToReplica != g.replica {
			continue // of a replica that is not, not yet or no longer here
		}
		if m.Raft.GetType() == pb.MsgSnap {
			continue // snapshots come as streams, which step their own
		}
		switch {
		case g.membership.node(m.FromReplica) != 0:
			g.heardAt[m.FromReplica] = h.ticks
		case g.node(m.FromReplica) == 0:
			g.heard = append(g.heard, Replica{m.FromReplica, from})
		}
		if err := g.oldCopy(m.Raft); err != nil {
			h.broken = err
			return
		}
		// Errors are about messages that have become irrelevant, such as answers to a former leader.
		_ = g.raft.Step(m.Raft)
		h.touch(g)
	}
}

// Unreachable says that a message for a replica of a group on node to could not be sent.
func (h *Host) Unreachable(id shard.ID, replica uint64) {
	if g := h.groups[id]; g != nil {
		g.raft.ReportUnreachable(replica)
	}
}

// Manner says how a command is proposed and answered. The zero Manner is at once, both.
type Manner struct {
	// Wait holds the answer back until the object that the command leaves pending has settled.
	Wait bool
	// Lazy commands go into an entry with the next that is not, or after [Config.Leisure]: an entry, which costs every replica
	// a sync, is not made for what nobody waits for.
	Lazy bool
}

// Propose queues a command for the shard's log. Deadline is on the clock of Turn's Mono. Done is called once: with the result of
// applying; [NotLeaderError], ErrBusy, ErrTimeout, ErrTooLarge or ErrNoReplica when nothing happened;
// ErrOutcomeUnknown when that is not certain.
func (h *Host) Propose(id shard.ID, c shard.Command, m Manner, deadline int64, done Done) {
	g := h.groups[id]
	size := len(c.Payload) + len(c.Caller) + len(c.Key) + commandOverhead
	switch {
	case g == nil:
		done(shard.Result{}, ErrNoReplica)
	case len(c.Payload) > shard.MaxCommandBytes:
		done(shard.Result{}, ErrTooLarge)
	case !g.leads():
		done(shard.Result{}, g.notLeader())
	case len(g.queue) >= h.cfg.MaxQueuedCommands || g.queueBytes+size > h.cfg.MaxQueuedBytes:
		h.refused = h.now
		done(shard.Result{}, ErrBusy)
	default:
		due := h.now
		if m.Lazy && len(g.queue) < h.cfg.MaxEntryCommands && g.queueBytes < h.cfg.MaxEntryBytes {
			due += h.cfg.Leisure.Milliseconds()
		}
		g.enqueue(proposal{command: c, size: size, waiter: waiter{m.Wait, deadline, done}}, due)
		h.touch(g)
	}
}

// busyTime is how long a host counts as busy after a queue was full, in ms.
const busyTime = 1000

// Busy reports whether a queue of commands was full a moment ago: no time for work that can be left out.
func (h *Host) Busy() bool { return h.refused != 0 && h.now-h.refused < busyTime }

// Read answers a query. AtLeast is the index that an AtLeast read has to see. Done is called once, with the
// errors of Propose except ErrOutcomeUnknown.
func (h *Host) Read(id shard.ID, c Consistency, atLeast uint64, payload []byte, deadline int64, done Done) {
	g := h.groups[id]
	r := &read{payload: payload, deadline: deadline, done: done}
	switch {
	case g == nil:
		done(shard.Result{}, ErrNoReplica)
	case c == Stale || c == AtLeast && atLeast <= g.handed:
		h.task(g, &Task{kind: taskRead, reads: []*read{r}})
	case len(g.readQueue)+len(g.readAsked)+len(g.readWaiting) >= h.cfg.MaxQueuedReads:
		done(shard.Result{}, ErrBusy)
	case c == AtLeast:
		r.index = atLeast
		g.readWaiting = append(g.readWaiting, r)
	case !g.leads():
		done(shard.Result{}, g.notLeader())
	default:
		g.readQueue = append(g.readQueue, r)
		h.touch(g)
	}
}

// Do hands fn to the shard's applier, to be called with the machine between two entries.
func (h *Host) Do(id shard.ID, fn func(shard.Machine)) error {
	g := h.groups[id]
	if g == nil {
		return ErrNoReplica
	}
	h.task(g, &Task{kind: taskDo, fn: fn})
	return nil
}

// TransferLeader asks the leader to hand over to the replica on node to. It returns before that has happened, if it does.
func (h *Host) TransferLeader(id shard.ID, to transport.NodeID) error {
	g := h.groups[id]
	if g == nil {
		return ErrNoReplica
	}
	if !g.leads() {
		return g.notLeader()
	}
	for _, r := range g.membership.replicas {
		if r.Node != to {
			continue
		}
		if !slices.Contains(g.membership.conf.Voters, r.ID) {
			return &RefusedError{id, fmt.Sprintf("the replica on node %d is a learner and cannot lead", to)}
		}
		g.raft.TransferLeader(r.ID)
		h.touch(g)
		return nil
	}
	return &RefusedError{id, fmt.Sprintf("node %d has no replica", to)}
}

// Prefer says on which node the leader of a group should be, 0 for the one whose turn it is. The nodes of the group have to be told
// alike: the preferred replica campaigns after a start, and another one that leads hands over once that is well. It may be said
// of a group before this node has a replica of it.
func (h *Host) Prefer(id shard.ID, node transport.NodeID) {
	h.prefer[id] = node
	if g := h.groups[id]; g != nil && g.preferred != node {
		g.preferred, g.preferredWell = node, 0
	}
}

// giveBack hands the leadership to the preferred replica when that has been well for a while, so that a node that was away
// carries its share again.
func (h *Host) giveBack(g *group) {
	preferred := g.preferredReplica()
	if !g.leads() || preferred == g.replica || !h.CaughtUp(g.id, preferred) {
		g.preferredWell = 0
		return
	}
	if g.preferredWell++; g.preferredWell >= preferLooks {
		g.preferredWell = 0
		g.raft.TransferLeader(preferred)
	}
}

// giveAway hands the leadership to the voter that is furthest, because this node's disk is slow.
func (h *Host) giveAway(g *group) {
	if best := h.furthest(g, func(id uint64) bool { return h.hears(g, id) }); best != 0 {
		g.raft.TransferLeader(best)
	}
}

// silence returns for how many ticks a leader has not heard of a majority. It is 0 where it needs no other voter.
func (h *Host) silence(g *group) (ticks uint64) {
	for _, voters := range [...][]uint64{g.membership.conf.Voters, g.membership.conf.VotersOutgoing} {
		if len(voters) == 0 {
			continue
		}
		silent := h.scratchTicks[:0]
		for _, id := range voters {
			if id == g.replica {
				silent = append(silent, 0)
			} else {
				silent = append(silent, h.ticks-g.heardAt[id])
			}
		}
		slices.Sort(silent)
		ticks = max(ticks, silent[len(silent)/2])
		h.scratchTicks = silent
	}
	return ticks
}

// resign has the voter that is furthest campaign at once, because this leader hears too few. If they do not hear it either, the message
// is lost with all others. If they do, its heartbeats would keep them from campaigning until its quorum check, which takes up to
// twice the shortest election timeout, and then for theirs. It does not step down: whom it asks may be gone, and it may hear again.
func (h *Host) resign(g *group) {
	if best := h.furthest(g, func(uint64) bool { return true }); best != 0 {
		from, term := g.replica, g.leadTerm
		h.send(g, &pb.Message{Type: pb.MsgTimeoutNow.Enum(), From: &from, To: &best, Term: &term})
	}
}

// furthest returns the other voter that has most of the log, of those that will do, 0 for none.
func (h *Host) furthest(g *group, will func(replica uint64) bool) (best uint64) {
	var match uint64
	g.raft.WithProgress(func(id uint64, typ raft.ProgressType, p raftProgress) {
		if typ == raft.ProgressTypePeer && id != g.replica && will(id) && (best == 0 || p.Match > match) {
			best, match = id, p.Match
		}
	})
	return best
}

// Written says that the write in flight is done. After an error the executor must not go on.
func (h *Host) Written() {
	w := h.inFlight
	h.inFlight, h.flightTime = nil, 0
	if w.Sync {
		for _, f := range w.flushed {
			f.group.durable = max(f.group.durable, f.index)
		}
	}
	for i := range w.ops {
		op := &w.ops[i]
		g := op.group
		if op.truncFrom > 0 {
			g.log.truncate(op.trunc.index)
			g.truncating = false
		}
		if op.install != nil {
			h.installed(g, op.install)
		}
		if op.written != nil {
			op.written()
		}
		g.log.append(op.entries)
		if op.ready {
			h.release(g)
		}
		h.touch(g)
	}
	for _, g := range h.order {
		if len(g.queue) > 0 {
			h.touch(g)
		}
	}
	h.recycle(w)
}

// recycle keeps a write's slice for a later one.
func (h *Host) recycle(w *Write) {
	clear(w.ops)
	clear(w.flushed)
	*w = Write{ops: w.ops[:0], flushed: w.flushed[:0]}
	if len(h.next.ops) == 0 && !h.next.Sync {
		h.next = w
	}
}

// Reported takes what an applier has done.
func (h *Host) Reported(r Report) {
	g := h.groups[r.Group]
	if g == nil {
		if then := h.pending[r.Group]; r.Stopped && then != nil {
			then()
		}
		return
	}
	g.applied = max(g.applied, r.Applied)
	g.applyBytes -= r.Bytes
	g.flushed = max(g.flushed, r.Flushed)
	g.nextDue = r.NextDue
	if r.Ticked {
		g.tickProposed = false
	}
	if r.Stopped {
		h.install(g)
	}
	h.clock.See(r.Time)
	if len(g.queue) > 0 {
		h.touch(g)
	}
}

// proposeTick lets the leader's machine do what is due. After a change of members one more entry is: a follower learns that the change is
// committed with the entry after it, and keeps that with it. Only when a majority has may the replicas that have left go, for one
// that comes back without knowing would want their votes (found by the simulator, seed 8000085).
func (h *Host) proposeTick(g *group) {
	due := g.nextDue != 0 && g.nextDue <= h.logTime() || g.unsettled && g.settlesAt == 0
	if !g.leads() || g.tickProposed || !due {
		return
	}
	g.tickProposed = true
	g.enqueue(proposal{
		command: shard.Command{Kind: shard.KindTick}, size: commandOverhead,
		waiter: waiter{deadline: h.now + tickDeadline.Milliseconds(), done: func(shard.Result, error) {}},
	}, h.now)
}

// logTime is the time that an entry would carry now, or nearly.
func (h *Host) logTime() hlc.Time { return max(h.clock.Last(), hlc.FromMillis(h.wall)) }

// tickDeadline bounds the wait of the host's own proposals.
const tickDeadline = 10 * time.Second

// Turn acts on the inputs since the last turn. Deadlines are on now.Mono, the log's time follows now.Wall.
func (h *Host) Turn(now clock.Reading) Output {
	h.now, h.wall = now.Mono, now.Wall
	slices.SortFunc(h.active, func(a, b *group) int { return cmp.Compare(a.id, b.id) })
	for i := 0; i < len(h.active); i++ { // a group may touch itself again
		g := h.active[i]
		g.active = false
		h.progress(g)
	}
	h.active = h.active[:0]
	h.dropRefused()
	if h.inFlight == nil && (len(h.next.ops) > 0 || h.next.Sync) {
		w := h.next
		h.next = new(Write)
		h.inFlight = w
		h.flightTime = 0
		if w.Sync {
			h.sinceSync = 0
		}
		for _, g := range h.order {
			w.flushed = append(w.flushed, flushedState{g, g.flushed})
		}
		h.out.Write = w
	}
	out := h.out
	h.out = Output{}
	return out
}

// progress proposes, reads and handles what Raft has ready, until there is nothing more to do now.
func (h *Host) progress(g *group) {
	for {
		g.offer()
		h.proposeQueued(g)
		h.askReads(g)
		if g.held || !g.raft.HasReady() {
			return
		}
		h.handle(g, g.raft.Ready())
	}
}

// proposeQueued makes entries of the queued commands. While a write is away the queue grows instead:
// so batches adapt to the load, and every group's entries go into the next sync together.
func (h *Host) proposeQueued(g *group) {
	if len(g.queue) == 0 || h.now < g.queueDue || h.inFlight != nil || g.held || g.blocked || !g.leads() || g.applyBytes > h.cfg.MaxApplyBytes {
		return
	}
	var batches []*batch
	var ends []int
	data := h.scratch[:0] // Raft keeps copies
	taken := 0
	for taken < len(g.queue) && len(batches) < h.cfg.MaxRoundEntries {
		b := &batch{tag: h.tags + 1, deadline: g.queue[taken].deadline}
		e := shard.Entry{Time: h.clock.Next(h.wall), Proposer: h.cfg.Process, Commands: h.commands[:0]}
		bytes := 0
		for taken < len(g.queue) && len(e.Commands) < h.cfg.MaxEntryCommands {
			p := &g.queue[taken]
			if bytes > 0 && bytes+p.size > h.cfg.MaxEntryBytes {
				break
			}
			bytes += p.size
			h.tags++
			p.command.Tag = h.tags
			e.Commands = append(e.Commands, p.command)
			b.deadline = min(b.deadline, p.deadline)
			taken++
		}
		n := len(e.Commands)
		b.waiters = make([]waiter, n)
		for i, p := range g.queue[taken-n : taken] {
			b.waiters[i] = p.waiter
		}
		data = shard.AppendEntry(data, &e)
		ends = append(ends, len(data))
		batches = append(batches, b)
		clear(e.Commands)
		h.commands = e.Commands
	}
	h.scratch = data
	entries := make([]*pb.Entry, len(ends))
	for i, end := range ends {
		start := 0
		if i > 0 {
			start = ends[i-1]
		}
		entries[i] = &pb.Entry{Data: data[start:end:end]}
	}
	err := g.raft.Step(&pb.Message{Type: pb.MsgProp.Enum(), From: new(g.replica), Entries: entries})
	if err != nil {
		g.blocked = true // handing over, or too much is uncommitted: try again at the next tick
		return
	}
	for i := range g.queue[:taken] {
		g.queueBytes -= g.queue[i].size
	}
	n := copy(g.queue, g.queue[taken:])
	clear(g.queue[n:])
	g.queue = g.queue[:n]
	g.proposed = append(g.proposed, batches...)
}

// handle acts on a Ready. What it promises to others waits for the write; what it does not goes at once:
// a leader's appends overlap its own sync (Ongaro 2014, section 10.2.1).
func (h *Host) handle(g *group, rd raft.Ready) {
	if rd.HardState != nil {
		g.hard = hardState{rd.GetTerm(), rd.GetVote(), rd.GetCommit()}
		g.hardDirty = true
	}
	if rd.SoftState != nil {
		g.leader = rd.Lead
		g.isLeader = rd.RaftState == raft.StateLeader
	}
	h.noteLeadership(g)
	for _, rs := range rd.ReadStates {
		h.readState(g, rs)
	}
	stable := g.log.last()
	if len(rd.Entries) > 0 {
		stable = min(stable, rd.Entries[0].GetIndex()-1)
	}
	h.matchProposed(g, rd.Entries)
	var late []*pb.Message
	for _, m := range rd.Messages {
		switch m.GetType() {
		case pb.MsgAppResp, pb.MsgVoteResp, pb.MsgPreVoteResp:
			late = append(late, m)
		default:
			h.send(g, m)
		}
	}
	// Entries that were written before can be applied now; the others only when they are on disk here too.
	k := 0
	for k < len(rd.CommittedEntries) && rd.CommittedEntries[k].GetIndex() <= stable {
		k++
	}
	h.apply(g, rd.CommittedEntries[:k])
	g.ready, g.late, g.rest = rd, late, rd.CommittedEntries[k:]
	if !raft.IsEmptySnap(rd.Snapshot) {
		g.held = true
		h.beginInstall(g, rd.Snapshot)
		return
	}
	if len(rd.Entries) == 0 && !rd.MustSync {
		h.release(g)
		return
	}
	g.held = true
	op := writeOp{group: g, ready: true, entries: rd.Entries, oldLast: g.log.last(), hard: g.hard, writeHard: g.hardDirty}
	g.hardDirty = false
	h.next.Sync = h.next.Sync || rd.MustSync
	h.next.ops = append(h.next.ops, op)
}

// release does what a Ready promised to do after its write.
func (h *Host) release(g *group) {
	rest, late := g.rest, g.late
	rd := g.ready
	g.ready, g.rest, g.late, g.held = raft.Ready{}, nil, nil, false
	h.apply(g, rest) // a configuration change takes effect before the messages leave
	for _, m := range late {
		h.send(g, m)
	}
	g.raft.Advance(rd)
}

func (h *Host) send(g *group, m *pb.Message) {
	if m.GetType() == pb.MsgSnap {
		h.startSnapshot(g, m)
		return
	}
	if to := g.node(m.GetTo()); to != 0 {
		h.out.Messages = append(h.out.Messages, Outgoing{To: to, Class: transport.Raft, Message: transport.Message{
			Kind: transport.KindRaft, Group: uint32(g.id), FromReplica: g.replica, ToReplica: m.GetTo(), Raft: m,
		}})
	}
}

// matchProposed finds the index of this process's own entries as Raft logs them.
func (h *Host) matchProposed(g *group, entries []*pb.Entry) {
	if len(g.proposed) == 0 {
		return
	}
	for _, e := range entries {
		proposer, tag, ok := shard.EntryOrigin(e.Data)
		if !ok || proposer != h.cfg.Process || len(g.proposed) == 0 || g.proposed[0].tag != tag {
			continue
		}
		b := g.proposed[0]
		g.proposed = g.proposed[1:]
		b.index, b.term = e.GetIndex(), e.GetTerm()
		if g.unsettled && g.settlesAt == 0 && b.tag > g.settlesAfter {
			g.settlesAt = b.index
		}
		// Entries of an earlier leadership at this place or later are not in this log any more. Whether another
		// replica still has them and makes them count cannot be known here.
		for n := len(g.logged); n > 0 && g.logged[n-1].index >= b.index; n-- {
			g.logged[n-1].fail(ErrOutcomeUnknown)
			g.logged = g.logged[:n-1]
		}
		g.logged = append(g.logged, b)
	}
	for _, b := range g.proposed {
		b.fail(ErrOutcomeUnknown) // beaten before it was logged, but it may have been sent
	}
	g.proposed = nil
}

// apply hands committed entries to the group's applier.
func (h *Host) apply(g *group, entries []*pb.Entry) {
	if len(entries) == 0 {
		return
	}
	t := &Task{kind: taskApply, entries: entries}
	for _, e := range entries {
		index := e.GetIndex()
		invariant.Check(index == g.handed+1, "replica %s: entry %d is committed after %d", g.id, index, g.handed)
		g.handed = index
		g.termBegun = g.termBegun || g.leads() && e.GetTerm() == g.leadTerm
		g.unsettled = g.unsettled && index != g.settlesAt
		t.bytes += entryBytes(e)
		if e.GetType() != pb.EntryNormal {
			g.reconfigure(e, h.cfg.Process)
			g.unsettled, g.settlesAfter, g.settlesAt = g.leads(), h.tags, 0
			t.members = append(t.members, memberChange{index, g.membership})
		}
		for len(g.logged) > 0 && g.logged[0].index <= index {
			b := g.logged[0]
			g.logged = g.logged[1:]
			if b.index == index && b.term == e.GetTerm() {
				t.batches = append(t.batches, b)
			} else {
				b.fail(g.notLeader()) // another entry has taken its place for good
			}
		}
	}
	t.first, t.last = entries[0].GetIndex(), g.handed
	g.applyBytes += t.bytes
	if g.applyBytes > 2*h.cfg.MaxApplyBytes && t.last <= g.log.last() && len(t.batches) == 0 {
		t.entries = nil // the applier is far behind: it reads them from the log when it comes to them
	}
	h.task(g, t)
	n := 0
	for _, r := range g.readWaiting {
		if r.index <= g.handed {
			h.task(g, &Task{kind: taskRead, reads: []*read{r}})
			continue
		}
		g.readWaiting[n] = r
		n++
	}
	clear(g.readWaiting[n:])
	g.readWaiting = g.readWaiting[:n]
}

func (h *Host) task(g *group, t *Task) {
	t.Group, t.Worker, t.leadTerm = g.id, g.worker, g.leadTerm
	h.out.Tasks = append(h.out.Tasks, t)
}

// noteLeadership acts on a leadership won or lost.
func (h *Host) noteLeadership(g *group) {
	term := uint64(0)
	if g.isLeader {
		term = g.hard.term
	}
	if term == g.leadTerm {
		return
	}
	g.leadTerm, g.termBegun, g.unsettled = term, false, false
	g.tickProposed = false
	h.task(g, &Task{kind: taskLead})
	if term != 0 {
		return
	}
	err := g.notLeader()
	for _, p := range g.queue {
		p.done(shard.Result{}, err)
	}
	clear(g.queue)
	g.queue, g.queueBytes = g.queue[:0], 0
	for _, r := range slices.Concat(g.readQueue, g.readAsked) {
		r.done(shard.Result{}, err)
	}
	g.readQueue, g.readAsked = nil, nil
}

// askReads has Raft confirm the leadership for all linearizable reads that wait, one round for all. A leader knows what is
// committed once an entry of its own term is; Raft waits for that too, except in a group of one, where a commit index that
// a crash has set back would be read at.
func (h *Host) askReads(g *group) {
	if len(g.readQueue) == 0 || len(g.readAsked) > 0 || !g.leads() || !g.termBegun {
		return
	}
	h.reads++
	g.readContext = h.reads
	g.raft.ReadIndex(readContext(h.reads))
	g.readAsked, g.readQueue = g.readQueue, nil
}

func (h *Host) readState(g *group, rs raft.ReadState) {
	if len(rs.RequestCtx) != 8 || string(rs.RequestCtx) != string(readContext(g.readContext)) {
		return
	}
	asked := g.readAsked
	g.readAsked = nil
	if rs.Index <= g.handed {
		if len(asked) > 0 {
			h.task(g, &Task{kind: taskRead, reads: asked})
		}
		return
	}
	for _, r := range asked {
		r.index = rs.Index
	}
	g.readWaiting = append(g.readWaiting, asked...)
}

// sweep answers what has waited past its deadline.
func (h *Host) sweep(g *group) {
	n := 0
	for _, p := range g.queue {
		if p.deadline <= h.now {
			g.queueBytes -= p.size
			p.done(shard.Result{}, ErrTimeout)
			if p.command.Kind == shard.KindTick {
				g.tickProposed = false
			}
			continue
		}
		g.queue[n] = p
		n++
	}
	clear(g.queue[n:])
	g.queue = g.queue[:n]
	for _, b := range g.logged {
		b.expire(h.now)
	}
	g.expireChanges(h.now)
	for _, list := range []*[]*read{&g.readQueue, &g.readAsked, &g.readWaiting} {
		n := 0
		for _, r := range *list {
			if r.deadline <= h.now {
				r.done(shard.Result{}, ErrTimeout)
				continue
			}
			(*list)[n] = r
			n++
		}
		clear((*list)[n:])
		*list = (*list)[:n]
	}
}

// truncate cuts the log when it is longer than it needs to be: below what is durably applied here, and on the
// leader not ahead of live followers unless they are far behind.
func (h *Host) truncate(g *group) {
	if g.truncating || g.held || g.sending != nil || g.receiving != nil {
		return
	}
	cut := g.durable
	if len(g.membership.members()) > 1 { // else nobody could want it
		cut = min(cut, g.log.suffix(h.cfg.RetainEntries, h.cfg.RetainBytes))
	}
	if g.leads() && g.log.bytes < h.cfg.HoldBytes {
		g.raft.WithProgress(func(id uint64, _ raft.ProgressType, p raftProgress) {
			if id != g.replica && h.hears(g, id) {
				cut = min(cut, p.Match)
			}
		})
	}
	if cut <= g.log.trunc.index || int(cut-g.log.trunc.index) < h.cfg.TruncateEntries && g.log.bytesTo(cut) < h.cfg.TruncateBytes {
		return
	}
	g.truncating = true
	h.next.ops = append(h.next.ops, writeOp{
		group: g, truncFrom: g.log.trunc.index + 1, trunc: position{cut, g.log.term(cut)},
	})
}

// stop answers everything that waits, and returns the tasks that nobody will do.
func (h *Host) stop() []*Task {
	for _, g := range h.order {
		g.fail(ErrStopped)
	}
	return h.out.Tasks
}
