package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"hanse/internal/clock"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"
)

// maxLateTicks bounds the ticks that a turn makes up for: after a pause, more would let a node time out on
// leaders whose messages it has just not read yet.
const maxLateTicks = 2

// Node drives a [Host] and its appliers with goroutines. All methods may be used concurrently.
type Node struct {
	cfg       Config
	clock     *clock.Clock
	engine    store.Engine
	transport transport.Transport
	log       *slog.Logger
	host      *Host
	workers   []*worker
	writes    chan *Write
	bulk      chan bulkMessage

	mu      sync.Mutex
	inbox   inbox
	stopped bool
	signal  chan struct{}

	writeAge atomic.Int64 // ns
	busy     atomic.Bool

	statusMu sync.Mutex
	status   []Status

	streamMu sync.Mutex
	streams  map[*Sending]chan *transport.Message // answers to what this node sends
}

// inbox is what the loop has not seen yet.
type inbox struct {
	messages  []arrived
	requests  []func(h *Host)
	proposals []proposed
	ticks     int
}

// proposed is a call of [Host.Propose]: there are so many that a function for each would cost.
type proposed struct {
	id       shard.ID
	command  shard.Command
	manner   Manner
	deadline int64
	done     Done
}

func (p *proposed) tell(h *Host) { h.Propose(p.id, p.command, p.manner, p.deadline, p.done) }

type arrived struct {
	from     transport.NodeID
	messages []transport.Message
}

type bulkMessage struct {
	from    transport.NodeID
	message transport.Message
}

// Open loads the replicas that the engine holds. It starts nothing. Observer is told what happens in them,
// from the goroutines of Run.
func Open(cfg Config, c *clock.Clock, e store.Engine, t transport.Transport, open shard.Opener, o Observer, log *slog.Logger) (*Node, error) {
	host, appliers, err := Load(cfg, e, open, o)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, clock: c, engine: e, transport: t, log: log, host: host,
		writes: make(chan *Write, 1), bulk: make(chan bulkMessage, 4*snapshotWindow), signal: make(chan struct{}, 1),
		streams: make(map[*Sending]chan *transport.Message),
	}
	for _, a := range appliers {
		n.workers = append(n.workers, &worker{applier: a, signal: make(chan struct{}, 1)})
	}
	n.status = n.host.Status()
	return n, nil
}

// Run drives the replicas until ctx ends or a part fails. It owns every goroutine it starts. After ctx's end it flushes
// the state; requests that have not been answered get ErrStopped or ErrOutcomeUnknown.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.loop(ctx, g) })
	g.Go(func() error { return n.write(ctx) })
	g.Go(func() error { return n.receiveSnapshots(ctx) })
	for _, w := range n.workers {
		g.Go(func() error { return n.work(ctx, w, g) })
	}
	g.Go(func() error {
		t := time.NewTicker(n.cfg.TickInterval)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
				n.mu.Lock()
				n.inbox.ticks = min(n.inbox.ticks+1, maxLateTicks)
				n.mu.Unlock()
				n.wake()
				for _, w := range n.workers {
					w.wake()
				}
			}
		}
	})
	err := g.Wait()
	n.stop()
	return err
}

func (n *Node) wake() {
	select {
	case n.signal <- struct{}{}:
	default:
	}
}

// ask queues a request for the loop; false when the node has stopped.
func (n *Node) ask(fn func(*Host)) bool {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		return false
	}
	n.inbox.requests = append(n.inbox.requests, fn)
	first := len(n.inbox.requests) == 1
	n.mu.Unlock()
	if first {
		n.wake()
	}
	return true
}

// stop refuses everything from now on and answers what waits.
func (n *Node) stop() {
	n.mu.Lock()
	n.stopped = true
	in := n.inbox
	n.inbox = inbox{}
	n.mu.Unlock()
	for _, fn := range in.requests { // so that none goes unanswered
		fn(n.host)
	}
	for i := range in.proposals {
		in.proposals[i].tell(n.host)
	}
	for _, w := range n.workers {
		w.mu.Lock()
		tasks := w.tasks
		w.tasks, w.stopped = nil, true
		w.mu.Unlock()
		for _, t := range tasks {
			t.Abandon()
		}
	}
	for _, t := range n.host.stop() {
		t.Abandon()
	}
}

// Receive takes messages from another node; it is part of the transport's handler.
func (n *Node) Receive(from transport.NodeID, messages []transport.Message) {
	var raft []transport.Message
	for _, m := range messages {
		switch m.Kind {
		case transport.KindRaft:
			raft = append(raft, m)
		case transport.KindSnapshot:
			n.snapshotMessage(from, m)
		}
	}
	if len(raft) == 0 {
		return
	}
	n.mu.Lock()
	n.inbox.messages = append(n.inbox.messages, arrived{from, raft})
	n.mu.Unlock()
	n.wake()
}

// Propose queues a command; see [Host.Propose]. The deadline is made from time.Now. Done may be called before Propose returns.
func (n *Node) Propose(id shard.ID, c shard.Command, m Manner, deadline time.Time, done Done) {
	ms := n.clock.At(deadline)
	n.mu.Lock()
	stopped := n.stopped
	if !stopped {
		n.inbox.proposals = append(n.inbox.proposals, proposed{id, c, m, ms, done})
	}
	first := len(n.inbox.proposals) == 1
	n.mu.Unlock()
	if stopped {
		done(shard.Result{}, ErrStopped)
	} else if first {
		n.wake()
	}
}

// Read answers a query; see [Host.Read].
func (n *Node) Read(id shard.ID, c Consistency, atLeast uint64, payload []byte, deadline time.Time, done Done) {
	ms := n.clock.At(deadline)
	if !n.ask(func(h *Host) { h.Read(id, c, atLeast, payload, ms, done) }) {
		done(shard.Result{}, ErrStopped)
	}
}

// Do calls fn with the shard's machine, between two entries, and returns when it has. Fn must not keep the machine.
func (n *Node) Do(ctx context.Context, id shard.ID, fn func(shard.Machine)) error {
	done := make(chan error, 1)
	ok := n.ask(func(h *Host) {
		if err := h.Do(id, func(m shard.Machine) { fn(m); done <- nil }); err != nil {
			done <- err
		}
	})
	if !ok {
		return ErrStopped
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TransferLeader asks the leader to hand over to the replica on node to; see [Host.TransferLeader].
func (n *Node) TransferLeader(id shard.ID, to transport.NodeID) error {
	done := make(chan error, 1)
	if !n.ask(func(h *Host) { done <- h.TransferLeader(id, to) }) {
		return ErrStopped
	}
	return <-done
}

// ChangeMembers changes the members of a group this node leads, and returns when that is in force here; see [Host.ChangeMembers].
func (n *Node) ChangeMembers(ctx context.Context, id shard.ID, changes []MemberChange) error {
	deadline := time.Now().Add(changePatience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return n.do(ctx, func(h *Host, done func(error)) { h.ChangeMembers(id, changes, n.clock.At(deadline), done) })
}

// changePatience bounds the wait for a change of members.
const changePatience = 10 * time.Second

// CreateReplica makes an empty replica on this node; see [Host.Create].
func (n *Node) CreateReplica(ctx context.Context, id shard.ID, replica uint64) error {
	return n.do(ctx, func(h *Host, done func(error)) { h.Create(id, replica, done) })
}

// DestroyReplica removes this node's replica with that number for good; see [Host.Destroy].
func (n *Node) DestroyReplica(ctx context.Context, id shard.ID, replica, next uint64) error {
	return n.do(ctx, func(h *Host, done func(error)) { h.Destroy(id, replica, next, done) })
}

// RecoverReplica makes this node's replica the only member of its group under another number, after a majority was lost for good;
// see [Host.Recover].
func (n *Node) RecoverReplica(ctx context.Context, id shard.ID, number uint64) error {
	return n.do(ctx, func(h *Host, done func(error)) { h.Recover(id, number, done) })
}

// Prefer says on which node the leader of a group should be; see [Host.Prefer].
func (n *Node) Prefer(id shard.ID, node transport.NodeID) {
	n.ask(func(h *Host) { h.Prefer(id, node) })
}

func (n *Node) do(ctx context.Context, fn func(h *Host, done func(error))) error {
	done := make(chan error, 1)
	if !n.ask(func(h *Host) { fn(h, func(err error) { done <- err }) }) {
		return ErrStopped
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status returns the state of all replicas as of the last tick.
func (n *Node) Status() []Status {
	n.statusMu.Lock()
	defer n.statusMu.Unlock()
	return n.status
}

// WriteAge returns how long the write under way has been away, to a tick's grain; 0 when there is none.
func (n *Node) WriteAge() time.Duration { return time.Duration(n.writeAge.Load()) }

// Busy is as [Host.Busy] has it.
func (n *Node) Busy() bool { return n.busy.Load() }

// loop owns the host.
func (n *Node) loop(ctx context.Context, g *errgroup.Group) error {
	var in inbox
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.signal:
		}
		n.mu.Lock()
		in, n.inbox = n.inbox, inbox{messages: in.messages[:0], requests: in.requests[:0], proposals: in.proposals[:0]}
		n.mu.Unlock()
		for _, a := range in.messages {
			n.host.Receive(a.from, a.messages)
		}
		for _, fn := range in.requests {
			fn(n.host)
		}
		for i := range in.proposals {
			in.proposals[i].tell(n.host)
		}
		for range in.ticks {
			n.host.Tick()
		}
		clear(in.messages)
		clear(in.requests)
		clear(in.proposals)
		if err := n.host.Broken(); err != nil {
			return err
		}
		if n.host.DiskStalled() {
			return fmt.Errorf("replica: a write has been away for more than %v: the disk hangs", n.cfg.DeadDisk)
		}
		n.execute(n.host.Turn(n.clock.Read()))
		if busy := n.host.Busy(); busy != n.busy.Load() {
			n.busy.Store(busy)
		}
		if in.ticks > 0 {
			n.writeAge.Store(int64(n.host.WriteAge()))
			status := n.host.Status()
			n.statusMu.Lock()
			n.status = status
			n.statusMu.Unlock()
		}
	}
}

func (n *Node) execute(out Output) {
	for i := range out.Messages {
		m := &out.Messages[i]
		if !n.transport.Send(m.To, m.Class, m.Message) {
			n.host.Unreachable(shard.ID(m.Message.Group), m.Message.ToReplica)
		}
	}
	if out.Write != nil {
		if len(out.Messages) > 0 {
			// The appends are what a commit waits for: let those who send them go before the write takes this processor.
			runtime.Gosched()
		}
		n.writes <- out.Write // at most one is in flight: this never waits
	}
	for _, t := range out.Tasks {
		n.workers[t.Worker].add(t)
	}
}

func (n *Node) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-n.writes:
			if err := w.Execute(n.engine); err != nil {
				return fmt.Errorf("write %d entries of %d groups: %w", w.Entries(), w.Groups(), err)
			}
			n.ask((*Host).Written)
		}
	}
}

// worker runs an applier.
type worker struct {
	applier *Applier
	mu      sync.Mutex
	tasks   []*Task
	stopped bool
	signal  chan struct{}
}

func (w *worker) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *worker) add(t *Task) {
	w.mu.Lock()
	stopped := w.stopped
	if !stopped {
		w.tasks = append(w.tasks, t)
	}
	first := len(w.tasks) == 1
	w.mu.Unlock()
	if stopped {
		t.Abandon()
	} else if first {
		w.wake()
	}
}

func (n *Node) work(ctx context.Context, w *worker, g *errgroup.Group) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
			if err == nil {
				err = w.applier.Close()
			}
		case *shard.StoreFault:
			err = p
		default:
			panic(p)
		}
	}()
	var tasks []*Task
	var lastTick int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.signal:
		}
		w.mu.Lock()
		tasks, w.tasks = w.tasks, tasks[:0]
		w.mu.Unlock()
		now := n.clock.Mono()
		var reports []Report
		for _, t := range tasks {
			rep, err := w.applier.Run(t, now)
			if err != nil {
				return err
			}
			reports = append(reports, rep)
			if s := t.Sending(); s != nil {
				g.Go(func() error { n.sendSnapshot(ctx, s); return nil })
			}
		}
		clear(tasks)
		if now-lastTick >= n.cfg.TickInterval.Milliseconds() {
			lastTick = now
			more, err := w.applier.Tick(now)
			if err != nil {
				return err
			}
			reports = append(reports, more...)
		}
		if len(reports) > 0 {
			n.ask(func(h *Host) {
				for _, r := range reports {
					h.Reported(r)
				}
			})
		}
	}
}

// snapshotMessage sorts chunks from answers to chunks.
func (n *Node) snapshotMessage(from transport.NodeID, m transport.Message) {
	if len(m.Body) == 0 {
		return
	}
	if m.Body[0] == chunkAck || m.Body[0] == chunkNo {
		n.streamMu.Lock()
		defer n.streamMu.Unlock()
		for s, answers := range n.streams {
			if s.id == m.ID && s.To == from {
				select {
				case answers <- &m:
				default: // more answers than chunks: the peer is broken, and the stream will time out
				}
			}
		}
		return
	}
	select {
	case n.bulk <- bulkMessage{from, m}:
	default: // the sender keeps to its window, so this is a stream too many; its sender tries again
	}
}

// sendSnapshot runs one stream and reports its end.
func (n *Node) sendSnapshot(ctx context.Context, s *Sending) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, n.cfg.SnapshotTimeout)
	defer cancel()
	answers := make(chan *transport.Message, 2*snapshotWindow)
	n.streamMu.Lock()
	n.streams[s] = answers
	n.streamMu.Unlock()
	err := n.stream(ctx, s, answers)
	n.streamMu.Lock()
	delete(n.streams, s)
	n.streamMu.Unlock()
	err = errors.Join(err, s.Close())
	log := n.log.With("shard", s.Group.String(), "to", uint64(s.To), "index", s.state.index, "chunks", s.sequence, "took", time.Since(start))
	if err != nil {
		log.Warn("snapshot not sent", "err", err)
	} else {
		log.Info("snapshot sent")
	}
	n.ask(func(h *Host) { h.SnapshotSent(s, err == nil) })
}

// ackPatience is how long a receiver may be silent.
const ackPatience = 10 * time.Second

func (n *Node) stream(ctx context.Context, s *Sending, answers <-chan *transport.Message) error {
	limit := rate.NewLimiter(rate.Limit(n.cfg.SnapshotBytesPerSecond), chunkBytes) // no burst: orders share the processors with it
	sent, acked := uint64(0), uint64(0)
	ended := false
	for !ended || acked < sent {
		for !ended && sent-acked < snapshotWindow {
			m, err := s.Next()
			if err != nil {
				return err
			}
			if ended = m == nil; ended {
				break
			}
			if err := limit.WaitN(ctx, min(len(m.Body), limit.Burst())); err != nil {
				return err
			}
			if !n.transport.Send(s.To, transport.Bulk, *m) {
				return fmt.Errorf("snapshot of %s: no connection to node %d", s.Group, s.To)
			}
			sent++
		}
		if acked == sent {
			continue
		}
		select {
		case m := <-answers:
			sequence, mine, err := s.Answer(m)
			if err != nil {
				return err
			}
			if mine {
				acked = max(acked, sequence+1)
			}
		case <-time.After(ackPatience):
			return fmt.Errorf("snapshot of %s: node %d has been silent for %v", s.Group, s.To, ackPatience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (n *Node) receiveSnapshots(ctx context.Context) error {
	r := NewReceiver(n.engine)
	defer r.Abort()
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-n.bulk:
			m := &b.message
			answer, complete := r.Chunk(b.from, m)
			n.transport.Send(b.from, transport.Bulk, transport.Message{
				Kind: transport.KindSnapshot, Group: m.Group, FromReplica: m.ToReplica, ToReplica: m.FromReplica, ID: m.ID, Body: answer,
			})
			if complete != nil {
				n.log.Info("snapshot received", "shard", complete.group.String(), "from", uint64(b.from), "index", complete.state.index)
				if !n.ask(func(h *Host) { h.Staged(complete) }) {
					complete.staged.Abort()
				}
			}
		}
	}
}
