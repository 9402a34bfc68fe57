package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"hanse/api/metapb"
	"hanse/internal/cluster"
	"hanse/internal/cluster/health"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/transport"
)

const (
	// stewardInterval is how often the plan is compared with the facts.
	stewardInterval = 200 * time.Millisecond
	// planInterval is how often the meta shard's leader looks whether the plan should change, and planPause how soon it looks again when
	// something has: a move that is done makes room for the next.
	planInterval = 500 * time.Millisecond
	planPause    = 100 * time.Millisecond
	// stepTimeout bounds one step of a move.
	stepTimeout = 10 * time.Second
	// settleTime is how long a shard is left alone after a step: what the replicas say of themselves is as of their last tick, 50 ms ago.
	settleTime = 100 * time.Millisecond
	// yieldPause is the time between attempts of a node that is not well to give its leaderships up.
	yieldPause = time.Second
)

// groups is what the steward needs of the replicas on this node; *replica.Node provides it.
type groups interface {
	Status() []replica.Status
	CreateReplica(ctx context.Context, id shard.ID, number uint64) error
	DestroyReplica(ctx context.Context, id shard.ID, number, next uint64) error
	ChangeMembers(ctx context.Context, id shard.ID, changes []replica.MemberChange) error
	TransferLeader(id shard.ID, to transport.NodeID) error
	Prefer(id shard.ID, node transport.NodeID)
}

// steward carries out the plan of the meta shard: on every node its own steps, and on the meta shard's leader the planning too. What is to
// be done is decided by package cluster; the steward only does it, and looks again.
type steward struct {
	self      uint64
	replicas  groups
	directory *directory
	heart     *heart
	// propose carries out a command of the meta shard.
	propose func(ctx context.Context, c *metapb.Command) (shard.Result, error)
	now     func() time.Time
	log     *slog.Logger

	mu      sync.Mutex
	busy    map[shard.ID]time.Time // when the last step ended, zero while it is under way
	blocked []string
	yielded time.Time
	notes   []*metapb.Event
	wake    chan struct{}
}

func newSteward(self uint64, d *directory, h *heart, now func() time.Time, log *slog.Logger) *steward {
	s := &steward{self: self, directory: d, heart: h, now: now, log: log, busy: make(map[shard.ID]time.Time), wake: make(chan struct{}, 1)}
	h.changed = append(h.changed, s.healthChanged)
	return s
}

// run compares and acts until ctx ends.
func (s *steward) run(ctx context.Context) error {
	s.directory.onChange(func(*known) { s.look() })
	t := time.NewTicker(stewardInterval)
	defer t.Stop()
	var steps sync.WaitGroup
	defer steps.Wait()
	var planned time.Time
	var plannedFor uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-s.wake:
		}
		k := s.directory.now()
		if !k.confirmed {
			continue // what is known may be of another time
		}
		busy := s.underWay() // before the facts are looked at: a step that ends in between has changed them
		status := s.replicas.Status()
		s.step(ctx, &steps, k, status, busy)
		s.yield(status)
		if leads(status, shard.NewID(shard.Meta, 0), s.self) {
			if age := time.Since(planned); age >= planInterval || age >= planPause && plannedFor != k.version() {
				planned, plannedFor = time.Now(), k.version()
				s.plan(ctx, k)
			}
			continue
		}
		s.mu.Lock()
		s.blocked, s.notes = nil, nil
		s.mu.Unlock()
	}
}

// look has the steward look at once.
func (s *steward) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func leads(status []replica.Status, id shard.ID, node uint64) bool {
	return slices.ContainsFunc(status, func(r replica.Status) bool { return r.Shard == id && uint64(r.Leader) == node })
}

// step begins what this node has to do for each shard, one thing at a time: nothing for those that are busy.
func (s *steward) step(ctx context.Context, running *sync.WaitGroup, k *known, status []replica.Status, busy map[shard.ID]bool) {
	own := make(map[shard.ID]replica.Status, len(status))
	for _, r := range status {
		own[r.Shard] = r
	}
	for _, sh := range k.view.Shards {
		id := shard.ID(sh.Id)
		r, here := own[id]
		if !here && sh.GetMove().GetTo().GetNode() != s.self {
			continue
		}
		if here {
			s.replicas.Prefer(id, transport.NodeID(sh.Leader))
		}
		step := cluster.Next(sh, s.self, r.Group())
		if step.Kind == cluster.Nothing || busy[id] {
			continue
		}
		s.begin(id)
		running.Go(func() {
			defer s.end(id)
			ctx, cancel := context.WithTimeout(ctx, stepTimeout)
			defer cancel()
			if err := s.do(ctx, step); err != nil && ctx.Err() == nil {
				s.log.Info("step of a move not done, looking again", "shard", id.String(), "step", step.String(), "err", err)
			}
		})
	}
}

// underWay are the shards for which a step has not ended, or so lately that the facts may not show it.
func (s *steward) underWay() map[shard.ID]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := make(map[shard.ID]bool)
	for id, ended := range s.busy {
		if !ended.IsZero() && time.Since(ended) >= settleTime {
			delete(s.busy, id)
			continue
		}
		busy[id] = true
	}
	return busy
}

func (s *steward) begin(id shard.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[id] = time.Time{}
}

func (s *steward) end(id shard.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[id] = time.Now()
}

func (s *steward) do(ctx context.Context, step cluster.Step) error {
	log := s.log.With("shard", step.Shard.String(), "step", step.String())
	done := func(err error) error {
		if err == nil {
			log.Info("step of a move done")
		}
		return err
	}
	switch step.Kind {
	case cluster.Create:
		return done(s.replicas.CreateReplica(ctx, step.Shard, step.Replica))
	case cluster.Destroy:
		return done(s.replicas.DestroyReplica(ctx, step.Shard, step.Replica, step.Next))
	case cluster.HandOver:
		return s.replicas.TransferLeader(step.Shard, transport.NodeID(step.To))
	case cluster.Change:
		return done(s.replicas.ChangeMembers(ctx, step.Shard, replica.PlannedChanges(step.Changes)))
	case cluster.Ready:
		return s.tell(ctx, &metapb.Command{Body: &metapb.Command_ReadyMove{ReadyMove: &metapb.ReadyMove{Shard: uint32(step.Shard), Replica: step.Replica}}})
	case cluster.Finish:
		return done(s.tell(ctx, &metapb.Command{Body: &metapb.Command_FinishMove{FinishMove: &metapb.FinishMove{
			Shard: uint32(step.Shard), Replica: step.Replica, Done: true,
		}}}))
	}
	return fmt.Errorf("unknown step %d", step.Kind)
}

// tell carries out a command of the meta shard; a rejection is an error.
func (s *steward) tell(ctx context.Context, c *metapb.Command) error {
	r, err := s.propose(ctx, c)
	if err == nil && !r.OK() {
		err = rejection(r)
	}
	if err == nil {
		s.directory.poke()
	}
	return err
}

// yield gives this node's leaderships to others while it is not well itself: its disk hangs or its clock is off.
func (s *steward) yield(status []replica.Status) {
	v := s.heart.seen.Load()
	if v.health[s.self].Health < cluster.Unhealthy || time.Since(s.yielded) < yieldPause {
		return
	}
	s.yielded = time.Now()
	for _, r := range status {
		if uint64(r.Leader) != s.self {
			continue
		}
		for _, m := range r.Replicas {
			if uint64(m.Node) != s.self && m.Voter && m.Active && v.health[uint64(m.Node)].Health == cluster.Healthy {
				s.log.Warn("leadership given away", "shard", r.Shard.String(), "to", uint64(m.Node), "reason", v.health[s.self].Reason)
				_ = s.replicas.TransferLeader(r.Shard, m.Node) // an error means that it leads no longer, or hands over already
				break
			}
		}
	}
}

// healthChanged keeps what the journal is to be told, which only the meta shard's leader does.
func (s *steward) healthChanged(changes []health.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if c.To == cluster.Suspect || c.From == cluster.Suspect && c.To == cluster.Healthy {
			continue // nothing follows from it
		}
		s.notes = append(s.notes, &metapb.Event{Type: "node." + c.To.String(), Node: c.Node, Detail: c.Reason})
	}
	if n := len(s.notes); n > maxNotes {
		s.notes = slices.Delete(s.notes, 0, n-maxNotes)
	}
}

// maxNotes bounds what waits for the journal.
const maxNotes = 100

// plan tells the meta shard what should change. It is for the meta shard's leader.
func (s *steward) plan(ctx context.Context, k *known) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	a := cluster.Plan(s.limits(k), k.view, s.heart.seen.Load().health, s.now().UnixMilli())
	s.mu.Lock()
	notes := s.notes
	s.notes = nil
	if !slices.Equal(a.Blocked, s.blocked) {
		for _, b := range a.Blocked {
			s.log.Warn("cannot be done", "what", b)
		}
	}
	s.blocked = a.Blocked
	s.mu.Unlock()

	var commands []*metapb.Command
	for _, c := range a.States {
		commands = append(commands, &metapb.Command{Body: &metapb.Command_SetNodeState{SetNodeState: c}})
	}
	for _, c := range a.GiveUp {
		commands = append(commands, &metapb.Command{Body: &metapb.Command_FinishMove{FinishMove: c}})
	}
	if len(a.Moves) > 0 {
		commands = append(commands, &metapb.Command{Body: &metapb.Command_PlanMoves{PlanMoves: &metapb.PlanMoves{Moves: a.Moves}}})
	}
	if len(a.Leaders) > 0 {
		commands = append(commands, &metapb.Command{Body: &metapb.Command_PreferLeaders{PreferLeaders: &metapb.PreferLeaders{Preferences: a.Leaders}}})
	}
	if a.Features > 0 {
		commands = append(commands, &metapb.Command{Body: &metapb.Command_RaiseFeatures{RaiseFeatures: &metapb.RaiseFeatures{Features: a.Features}}})
	}
	for _, e := range notes {
		commands = append(commands, &metapb.Command{Body: &metapb.Command_Note{Note: &metapb.Note{Event: e}}})
	}
	for _, c := range commands {
		if err := s.tell(ctx, c); err != nil && !errors.Is(err, context.Canceled) {
			s.log.Info("plan not taken, planning again", "err", err)
			return
		}
	}
	if len(commands) > 0 {
		// The next plan is made for what this one has led to, or it would be made twice.
		if err := s.directory.refresh(ctx); err != nil && !errors.Is(err, context.Canceled) {
			s.log.Info("meta shard not read", "err", err)
		}
	}
}

// limits are the planner's, as the cluster has set them.
func (s *steward) limits(k *known) cluster.Config {
	cfg := cluster.DefaultConfig()
	if d := k.view.GetCluster().GetDownAfter(); d > 0 {
		cfg.DownAfter = d
	}
	return cfg
}

// obstacles says what ought to be done and cannot be, as far as this node plans.
func (s *steward) obstacles() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked
}
