package replica

import (
	"fmt"
	"maps"
	"slices"

	"hanse/internal/hlc"
	"hanse/internal/invariant"
	"hanse/internal/shard"
	"hanse/internal/store"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Task is work for a group's applier. Tasks of a group are done in order.
type Task struct {
	Group shard.ID
	// Worker is the number of the applier that the group belongs to.
	Worker   int
	kind     taskKind
	leadTerm uint64 // the term in which this replica leads, or 0

	// taskApply: the committed entries first..last; nil when they have to be read from the log.
	entries     []*pb.Entry
	first, last uint64
	bytes       int
	batches     []*batch // this process's own, by index
	members     []memberChange
	// taskRead
	reads []*read
	// taskDo
	fn func(shard.Machine)
	// taskFreeze
	sending *Sending
	// taskAdd
	stored *stored
}

type memberChange struct {
	index uint64
	membership
}

type taskKind uint8

const (
	taskApply  taskKind = iota
	taskLead            // the leadership has changed; nothing else
	taskRead            // answer queries
	taskDo              // call a function
	taskFreeze          // flush, and take the store's snapshot for a stream
	taskStop            // drop the machine: its state is about to be replaced
	taskOpen            // open the machine anew
	taskAdd             // begin with a new replica
	taskRemove          // forget the replica
)

// Sending returns the snapshot that is to be sent once the task is done, nil for other tasks.
func (t *Task) Sending() *Sending { return t.sending }

// Abandon answers those who wait for a task that will not be done.
func (t *Task) Abandon() {
	for _, b := range t.batches {
		b.fail(ErrOutcomeUnknown)
	}
	for _, r := range t.reads {
		r.done(shard.Result{}, ErrStopped)
	}
}

// Report says what an applier has done.
type Report struct {
	Group shard.ID
	// Applied is the last applied index, Bytes the size of the entries since the last report.
	Applied uint64
	Bytes   int
	// Flushed is the index of the state that the store has.
	Flushed uint64
	NextDue hlc.Time
	// Time is the latest time that was applied.
	Time hlc.Time
	// Ticked says that a tick was applied, Stopped that the machine is gone.
	Ticked, Stopped bool
}

// Applier runs the state machines of some groups: one caller at a time.
type Applier struct {
	cfg      Config
	engine   store.Engine
	open     shard.Opener
	observer Observer
	replicas map[shard.ID]*applied
	order    []*applied
}

// applied is the applier's side of one replica.
type applied struct {
	id      shard.ID
	replica uint64
	machine shard.Machine // nil while its state is being replaced
	state   appliedState
	flushed uint64
	// leadTerm is the term in which this replica leads; announced says that the observer knows.
	leadTerm  uint64
	announced bool
	// settling holds answers back until their key settles.
	settling map[string][]settling
	held     int
	nextLate int64 // the earliest deadline of those
	first    int64 // when the oldest unflushed change was made, 0 for none
}

func newApplier(cfg Config, e store.Engine, open shard.Opener, o Observer) *Applier {
	return &Applier{cfg: cfg, engine: e, open: open, observer: o, replicas: make(map[shard.ID]*applied)}
}

func (a *Applier) add(s *stored) error {
	r := &applied{id: s.id, replica: s.replica, state: s.applied, flushed: s.applied.index, settling: make(map[string][]settling)}
	var err error
	if r.machine, err = a.open(s.id, a.engine, statePrefix(s.id)); err != nil {
		return fmt.Errorf("open shard %s: %w", s.id, err)
	}
	a.replicas[s.id] = r
	a.order = append(a.order, r)
	return nil
}

// settling is one who waits for a key, and the answer until it settles.
type settling struct {
	waiter
	first shard.Result
}

// Run does a task at time now, in ms on the clock that deadlines are on. A *shard.StoreFault panics, and so does a broken invariant.
func (a *Applier) Run(t *Task, now int64) (Report, error) {
	if t.kind == taskAdd {
		if err := a.add(t.stored); err != nil {
			return Report{}, err
		}
	}
	r := a.replicas[t.Group]
	if r == nil { // removed
		t.Abandon()
		return Report{Group: t.Group, Bytes: t.bytes}, nil
	}
	r.lead(a.observer, t.leadTerm)
	rep := Report{Bytes: t.bytes}
	switch t.kind {
	case taskApply:
		entries := t.entries
		if entries == nil {
			var err error
			if entries, err = readLog(a.engine, r.id, r.replica, t.first, t.last+1); err != nil {
				return rep, err
			}
		}
		for _, e := range entries {
			if err := a.apply(r, e, t, now, &rep); err != nil {
				return rep, err
			}
		}
	case taskRead:
		for _, q := range t.reads {
			if r.machine == nil {
				q.done(shard.Result{}, ErrTimeout)
				continue
			}
			result := r.machine.Query(q.payload)
			result.Position = r.state.index
			q.done(result, nil)
		}
	case taskDo:
		if r.machine != nil {
			t.fn(r.machine)
		}
	case taskFreeze:
		if err := a.flush(r); err != nil {
			return rep, err
		}
		t.sending.frozen(a.engine.Snapshot(), r.state)
	case taskStop:
		r.machine = nil
		rep.Stopped = true
	case taskRemove:
		delete(a.replicas, r.id)
		a.order = slices.DeleteFunc(a.order, func(o *applied) bool { return o == r })
		r.giveUp()
		return Report{Group: r.id, Stopped: true}, nil
	case taskOpen:
		if err := a.reopen(r); err != nil {
			return rep, err
		}
	}
	if r.machine != nil && (r.machine.DirtyBytes() >= a.cfg.FlushBytes || r.due(a.cfg, now)) {
		if err := a.flush(r); err != nil {
			return rep, err
		}
	}
	r.report(&rep)
	return rep, nil
}

func (r *applied) report(rep *Report) {
	rep.Group, rep.Applied, rep.Flushed, rep.Time = r.id, r.state.index, r.flushed, r.state.time
	if r.machine != nil {
		rep.NextDue = r.machine.NextDue()
	}
}

// lead takes note of a change of leadership. The observer learns of one that is won when all earlier terms are applied.
func (r *applied) lead(o Observer, term uint64) {
	if term == r.leadTerm {
		return
	}
	if r.announced {
		r.announced = false
		o.Leader(r.id, r.leadTerm, false)
	}
	r.leadTerm = term
}

// apply runs one entry.
func (a *Applier) apply(r *applied, e *pb.Entry, t *Task, now int64, rep *Report) error {
	index := e.GetIndex()
	invariant.Check(index == r.state.index+1, "replica %s: applying entry %d after %d", r.id, index, r.state.index)
	r.state.index, r.state.term = index, e.GetTerm()
	if r.first == 0 {
		r.first = now
	}
	if r.leadTerm != 0 && !r.announced && e.GetTerm() == r.leadTerm {
		r.announced = true
		a.observer.Leader(r.id, r.leadTerm, true)
	}
	for _, m := range t.members {
		if m.index == index {
			r.state.membership = m.membership
		}
	}
	if e.GetType() != pb.EntryNormal || len(e.Data) == 0 {
		return nil
	}
	entry, err := shard.DecodeEntry(e.Data)
	if err != nil {
		return &CorruptError{r.id, index, err.Error()}
	}
	entry.Index = index
	r.state.time = max(r.state.time, entry.Time)
	applied := r.machine.Apply(entry)
	for i := range entry.Commands {
		rep.Ticked = rep.Ticked || entry.Commands[i].Kind == shard.KindTick
	}
	a.observer.Applied(r.id, r.announced, applied)
	if len(t.batches) > 0 && t.batches[0].index == index {
		b := t.batches[0]
		t.batches = t.batches[1:]
		a.answer(r, b, applied)
	}
	if r.held > 0 {
		for _, key := range applied.Settled {
			r.settle(key, index)
		}
	}
	return nil
}

// answer gives the proposers of an entry their results, and holds back those that wait for a key to settle.
func (a *Applier) answer(r *applied, b *batch, applied shard.Applied) {
	for i := range b.waiters {
		p := b.waiters[i]
		result := applied.Results[i]
		if p.done == nil || !p.wait || result.Pending == "" || r.held >= a.cfg.MaxSettling {
			b.answer(i, result, nil)
			continue
		}
		r.settling[result.Pending] = append(r.settling[result.Pending], settling{p, result})
		if r.held++; r.held == 1 {
			r.nextLate = p.deadline
		}
		r.nextLate = min(r.nextLate, p.deadline)
	}
}

// settle answers those who waited for key.
func (r *applied) settle(key string, index uint64) {
	waiting, ok := r.settling[key]
	if !ok {
		return
	}
	delete(r.settling, key)
	r.held -= len(waiting)
	for i := range waiting {
		result := r.machine.View(key)
		result.Position, result.Replayed = index, waiting[i].first.Replayed
		waiting[i].done(result, nil)
	}
}

// due reports whether changes have been in memory only for Config.FlushInterval.
func (r *applied) due(cfg Config, now int64) bool {
	return r.first != 0 && now-r.first >= cfg.FlushInterval.Milliseconds()
}

// flush gives the state to the store, in one batch with the index it stands at. It is not synced: the next
// synced write makes it durable, and until then the log has it.
func (a *Applier) flush(r *applied) error {
	if r.first == 0 {
		return nil
	}
	b := a.engine.NewBatch()
	defer b.Close()
	r.machine.Flush(b)
	key := appliedKey(r.id)
	b.Set(key, r.state.encode(key))
	if err := a.engine.Apply(b, false); err != nil {
		return fmt.Errorf("flush state of %s at %d: %w", r.id, r.state.index, err)
	}
	r.flushed, r.first = r.state.index, 0
	return nil
}

// Tick flushes what is due and gives up waiting answers whose deadline has passed.
func (a *Applier) Tick(now int64) ([]Report, error) {
	var reports []Report
	for _, r := range a.order {
		if r.machine == nil {
			continue
		}
		r.expire(now)
		if !r.due(a.cfg, now) {
			continue
		}
		if err := a.flush(r); err != nil {
			return reports, err
		}
		var rep Report
		r.report(&rep)
		reports = append(reports, rep)
	}
	return reports, nil
}

// expire answers those who have waited too long with the first answer: the outcome is still pending.
func (r *applied) expire(now int64) {
	if r.held == 0 || now < r.nextLate {
		return
	}
	r.nextLate = 1<<63 - 1
	for _, key := range slices.Sorted(maps.Keys(r.settling)) {
		waiting := r.settling[key]
		kept := slices.DeleteFunc(waiting, func(p settling) bool {
			if p.deadline > now {
				r.nextLate = min(r.nextLate, p.deadline)
				return false
			}
			r.held--
			p.done(p.first, nil)
			return true
		})
		if len(kept) == 0 {
			delete(r.settling, key)
		} else {
			r.settling[key] = kept
		}
	}
}

// reopen loads the machine from a state that was replaced as a whole.
func (a *Applier) reopen(r *applied) error {
	key := appliedKey(r.id)
	v, err := a.engine.Get(key)
	if err != nil {
		return fmt.Errorf("reopen %s: %w", r.id, err)
	}
	state, reason := decodeApplied(key, v)
	if reason != "" {
		return &CorruptError{r.id, 0, "applied state: " + reason}
	}
	r.state, r.flushed, r.first = state, state.index, 0
	if r.machine, err = a.open(r.id, a.engine, statePrefix(r.id)); err != nil {
		return fmt.Errorf("reopen shard %s: %w", r.id, err)
	}
	return nil
}

// Close flushes everything, for a quick restart.
func (a *Applier) Close() error {
	for _, r := range a.order {
		if r.machine == nil {
			continue
		}
		if err := a.flush(r); err != nil {
			return err
		}
		r.giveUp()
	}
	return nil
}

// giveUp answers those who wait for a key to settle with their first answer: the outcome is still pending.
func (r *applied) giveUp() {
	for _, key := range slices.Sorted(maps.Keys(r.settling)) {
		for _, p := range r.settling[key] {
			p.done(p.first, nil)
		}
	}
	clear(r.settling)
	r.held = 0
}
