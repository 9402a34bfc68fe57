package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hanse/api/metapb"
	"hanse/internal/clock"
	"hanse/internal/cluster"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/transport"
)

// statusPatience is how long the other nodes may take to say how their shards are.
const statusPatience = time.Second

// operator is what those who run a cluster look at and do. It implements rest.Operator.
type operator struct {
	self      uint64
	client    *Client
	directory *directory
	heart     *heart
	steward   *steward
	router    *router
	replicas  interface {
		Status() []replica.Status
		RecoverReplica(ctx context.Context, id shard.ID, number uint64) error
	}
	clock *clock.Clock
	log   *slog.Logger
	psp   string // what a node that joins takes for its payment provider, unless it is told

	mu       sync.Mutex // held while the nodes are asked, so that all who want to know wait for one round
	latest   []report
	reported time.Time
}

var _ rest.Operator = (*operator)(nil)

var stateNames = func() map[metapb.NodeState]string {
	names := make(map[metapb.NodeState]string)
	for n, name := range metapb.NodeState_name {
		names[metapb.NodeState(n)] = strings.ToLower(strings.TrimPrefix(name, "NODE_"))
	}
	return names
}()

// Cluster implements rest.Operator.
func (o *operator) Cluster() rest.ClusterInfo {
	k, v := o.directory.now(), o.heart.seen.Load()
	c := k.view.GetCluster()
	info := rest.ClusterInfo{
		ID: c.GetId(), Features: c.GetFeatures(), Replicas: int(c.GetReplicas()), Version: c.GetVersion(),
		DownAfter: time.Duration(cmp.Or(c.GetDownAfter(), cluster.DefaultConfig().DownAfter)) * time.Millisecond,
	}
	replicas, leaders := make(map[uint64]int), make(map[uint64]int)
	reports := o.recent()
	for id, s := range k.shards {
		for _, r := range s.Replicas {
			replicas[r.Node]++
		}
		if best, leading := newest(reports, id); leading {
			leaders[uint64(best.Leader)]++
		}
	}
	for _, r := range reports { // of which one is the meta shard's leader, and plans
		info.Blocked = append(info.Blocked, r.Blocked...)
	}
	for _, n := range k.view.Nodes {
		observed, link := v.health[n.Id], v.links[n.Id]
		info.Nodes = append(info.Nodes, rest.NodeInfo{
			ID: n.Id, Name: n.Name, REST: n.Http, Peers: n.Peers, Gossip: n.Gossip, Zone: n.Zone, Roles: roles(n), Version: n.Version, Features: n.Features,
			Self: n.Id == o.self, State: stateNames[n.State], StateSince: n.StateSince, StateReason: n.StateReason,
			Health: observed.Health.String(), HealthSince: observed.Since, Reason: observed.Reason, RTT: link.RTT, Offset: link.Offset,
			Replicas: replicas[n.Id], Leaders: leaders[n.Id], StartedAt: n.StartedAt, Boot: n.Boot,
		})
	}
	for _, from := range slices.Sorted(maps.Keys(v.matrix)) {
		for _, l := range v.matrix[from] {
			info.Links = append(info.Links, rest.LinkInfo{From: from, To: l.To, Reached: l.Reached, RTT: l.RTT, Offset: l.Offset, Since: l.Since})
		}
	}
	return info
}

// report is what a node tells others about its replicas.
type report struct {
	Node    uint64
	Blocked []string
	Groups  []replica.Status
}

// answer serves requests to this node itself rather than to a shard.
func (o *operator) answer(q *request, respond func(shard.Result, error)) {
	switch q.op {
	case opStatus:
		data, err := json.Marshal(report{Node: o.self, Blocked: o.steward.obstacles(), Groups: o.replicas.Status()})
		respond(shard.Result{Payload: data}, err)
	case opRecover:
		if len(q.payload) != 8 {
			respond(shard.Result{}, errUnavailable)
			return
		}
		number := binary.BigEndian.Uint64(q.payload)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
			defer cancel()
			o.log.Warn("unsafe recovery", "shard", q.shard.String(), "replica", number)
			if err := o.replicas.RecoverReplica(ctx, q.shard, number); err != nil {
				respond(shard.Result{Code: reject.Internal, Detail: err.Error()}, nil)
				return
			}
			respond(shard.Result{}, nil)
		}()
	default:
		respond(shard.Result{}, errUnavailable)
	}
}

// reports asks all nodes that can be reached how their replicas are.
func (o *operator) reports() []report {
	own := report{Node: o.self, Blocked: o.steward.obstacles(), Groups: o.replicas.Status()}
	deadline := time.Now().Add(statusPatience)
	var mu sync.Mutex
	all := []report{own}
	var asked sync.WaitGroup
	for _, p := range o.directory.now().peers(o.self) {
		to := transport.NodeID(p)
		if !o.heart.reached(to) {
			continue
		}
		asked.Add(1)
		o.router.attempt(to, &request{op: opStatus}, deadline, func(r shard.Result, err error) {
			defer asked.Done()
			var theirs report
			if err != nil || json.Unmarshal(r.Payload, &theirs) != nil {
				return // it is not there, or of another version: what it has is unknown
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, theirs)
		})
	}
	asked.Wait()
	return all
}

// reportsAge is how old the reports on a status page may be. Every client of the cluster looks for its nodes again and again, and an
// answer asks all nodes.
const reportsAge = 250 * time.Millisecond

// recent returns reports that are at most reportsAge old. They are shared and not to be changed.
func (o *operator) recent() []report {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.reported) >= reportsAge {
		o.latest, o.reported = o.reports(), time.Now()
	}
	return o.latest
}

// Shards implements rest.Operator.
func (o *operator) Shards() []rest.ShardInfo {
	reports := o.recent()
	k, v := o.directory.now(), o.heart.seen.Load()
	var all []rest.ShardInfo
	for _, s := range k.view.Shards {
		best, leading := newest(reports, shard.ID(s.Id))
		info := rest.ShardInfo{
			ID: shard.ID(s.Id).String(), Leader: uint64(best.Leader), Preferred: s.Leader, Term: best.Term, Applied: best.Applied, Commit: best.Commit,
			State: o.stateOf(k, s, best, leading),
		}
		for _, r := range best.Replicas {
			info.Replicas = append(info.Replicas, rest.ReplicaInfo{ID: r.ID, Node: uint64(r.Node), Match: r.Match, State: r.State})
		}
		if len(best.Replicas) == 0 {
			for _, r := range s.Replicas {
				info.Replicas = append(info.Replicas, rest.ReplicaInfo{ID: r.Id, Node: r.Node, State: "unreachable"})
			}
		}
		for i := range info.Replicas {
			if r := &info.Replicas[i]; v.health[r.Node].Health == cluster.Dead {
				r.State = "dead"
			}
		}
		if m := s.Move; m != nil {
			move := &rest.MoveInfo{From: m.GetFrom().GetNode(), To: m.To.Node, Reason: m.Reason, Started: m.StartedAt}
			var percent int
			move.Doing, percent = cluster.MoveProgress(s, best.Group())
			move.Share = float64(percent) / 100
			if took := time.Since(time.UnixMilli(m.StartedAt)); move.Share > 0 && took > 0 {
				move.Left = time.Duration(float64(took) * (1 - move.Share) / move.Share).Round(time.Second)
			}
			info.Move = move
		}
		all = append(all, info)
	}
	return all
}

// newest returns what is known best of a shard: what its leader says, or else the replica that has come furthest.
func newest(reports []report, id shard.ID) (best replica.Status, leading bool) {
	for _, r := range reports {
		for _, g := range r.Groups {
			if g.Shard != id {
				continue
			}
			leads := uint64(g.Leader) == r.Node
			if best.Replica == 0 || leads && !leading || leads == leading && cmp.Or(cmp.Compare(g.Term, best.Term), cmp.Compare(g.Last, best.Last)) > 0 {
				best, leading = g, leads
			}
		}
	}
	return best, leading
}

func (o *operator) stateOf(k *known, s *metapb.Shard, best replica.Status, leading bool) string {
	live, voters := 0, 0
	for _, r := range best.Replicas {
		if r.Voter {
			voters++
			if r.Active {
				live++
			}
		}
	}
	switch {
	case !leading:
		return "unavailable"
	case s.Move != nil:
		return "moving"
	case live < cluster.Wanted(k.view, shard.ID(s.Id).Service()) || live < voters:
		return "under_replicated"
	}
	return "ok"
}

// ShardCounts implements rest.Operator.
func (o *operator) ShardCounts() map[string]int {
	counts := make(map[string]int)
	for s, n := range o.client.layout {
		counts[s.String()] = n
	}
	return counts
}

// Ready implements rest.Operator.
func (o *operator) Ready() error {
	if !o.directory.now().confirmed {
		return errors.New("the meta shard has not been read since the start")
	}
	var missing []string
	for _, s := range o.replicas.Status() {
		if s.Leader == 0 {
			missing = append(missing, s.Shard.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("no leader for %s", strings.Join(missing, ", "))
	}
	return nil
}

// tell carries out a command of the meta shard and decodes its answer into out, which may be nil.
func (o *operator) tell(ctx context.Context, c *metapb.Command, out message) error {
	to, r, err := o.client.propose(ctx, shard.Meta, 0, rest.Request{}, c, 0)
	switch {
	case err != nil:
		return err
	case !r.OK():
		return rejection(r)
	case out != nil:
		if err := out.UnmarshalVT(r.Payload); err != nil {
			return fmt.Errorf("decode the answer of %s: %w", to, err)
		}
	}
	o.directory.poke()
	return nil
}

// Join implements rest.Operator.
func (o *operator) Join(ctx context.Context, r rest.JoinRequest) (rest.JoinAnswer, error) {
	if off := time.Duration(r.Clock - o.clock.Now().UnixNano()); off.Abs() > o.heart.cfg.StopOffset {
		return rest.JoinAnswer{}, &reject.Rejection{Code: reject.ClockOff, Detail: fmt.Sprintf("the clock of the node that wants to join is off by %v from node %d's, "+
			"and %v is the most: set it, and start the node again", off.Round(time.Millisecond), o.self, o.heart.cfg.StopOffset)}
	}
	n := &metapb.Node{
		Name: r.Name, Http: r.HTTP, Peers: r.Peers, Gossip: r.Gossip, Zone: r.Zone, Version: r.Version, Format: r.Format, Features: r.Features,
		Process: r.Process, Replaces: r.Replaces, Roles: roleNumbers(r.Roles),
	}
	k := o.directory.now()
	if k.nodes[r.Replaces] != nil && o.heart.seen.Load().health[r.Replaces].Health < cluster.Unhealthy {
		return rest.JoinAnswer{}, &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("node %d is up: only a node that is gone is replaced; "+
			"stop it, or decommission it when the new node has joined", r.Replaces)}
	}
	if other := k.at(n); other != nil {
		return rest.JoinAnswer{}, &reject.Rejection{Code: reject.NodeExists, Detail: fmt.Sprintf("node %d (%s) is reached at %s, where the node that wants to join says it is: "+
			"choose another address; when node %d is lost, replace or forget it", other.Id, other.Name, other.Peers, other.Id)}
	}
	ctx, cancel := context.WithTimeout(ctx, joinAnswer)
	defer cancel()
	var a metapb.JoinAnswer
	err := o.tell(ctx, &metapb.Command{Body: &metapb.Command_Join{Join: &metapb.Join{Node: n, TokenHash: hashToken(r.Token), Cluster: r.Cluster}}}, &a)
	if err != nil {
		return rest.JoinAnswer{}, err
	}
	o.log.Info("node admitted", "peer", a.Node, "name", r.Name, "http", r.HTTP, "replaces", r.Replaces)
	return rest.JoinAnswer{Node: a.Node, Cluster: a.View.GetCluster().GetId(), View: encode(a.View), PSP: o.psp}, nil
}

func roleNumbers(names []string) []uint32 {
	var numbers []uint32
	for _, s := range shard.Services() {
		if slices.Contains(names, s.String()) {
			numbers = append(numbers, uint32(s))
		}
	}
	return numbers
}

// CreateJoinToken implements rest.Operator.
func (o *operator) CreateJoinToken(ctx context.Context) (string, error) {
	var raw [24]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("draw a join token: %w", err)
	}
	token := "hanse_" + base64.RawURLEncoding.EncodeToString(raw[:])
	return token, o.tell(ctx, &metapb.Command{Body: &metapb.Command_SetToken{SetToken: &metapb.SetToken{Hash: hashToken(token)}}}, nil)
}

// hashToken is what the cluster keeps of a join token, nil of none.
func hashToken(token string) []byte {
	if token == "" {
		return nil
	}
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}

// SetNodeState implements rest.Operator.
func (o *operator) SetNodeState(ctx context.Context, node uint64, state, reason string, dry bool) (rest.NodeInfo, error) {
	if err := o.directory.refresh(ctx); err != nil {
		return rest.NodeInfo{}, err
	}
	k, v := o.directory.now(), o.heart.seen.Load()
	if k.nodes[node] == nil {
		return rest.NodeInfo{}, &reject.Rejection{Code: reject.NodeNotFound, Detail: fmt.Sprintf("there is no node %d", node)}
	}
	to, known := metapb.NodeState(0), false
	for s, name := range stateNames {
		if name == state {
			to, known = s, true
		}
	}
	if !known {
		return rest.NodeInfo{}, &reject.Rejection{Code: reject.InvalidRequest, Detail: fmt.Sprintf("state %q: want active, draining, decommissioning or decommissioned", state)}
	}
	lost := to == metapb.NodeState_NODE_DECOMMISSIONED && k.nodes[node].State != metapb.NodeState_NODE_DECOMMISSIONED
	if lost && v.health[node].Health < cluster.Unhealthy {
		return rest.NodeInfo{}, &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("node %d is up: only a node that is gone can be forgotten; decommission it", node)}
	}
	if err := cluster.CheckState(k.view, v.health, node, to); err != nil && !lost { // what is lost has not to be moved away
		return rest.NodeInfo{}, &reject.Rejection{Code: reject.NodeState, Detail: err.Error()}
	}
	if !dry {
		c := &metapb.SetNodeState{Node: node, State: to, Reason: reason, Lost: lost}
		if err := o.tell(ctx, &metapb.Command{Body: &metapb.Command_SetNodeState{SetNodeState: c}}, new(metapb.Node)); err != nil {
			return rest.NodeInfo{}, err
		}
		if err := o.directory.refresh(ctx); err != nil {
			return rest.NodeInfo{}, err
		}
	}
	for _, n := range o.Cluster().Nodes {
		if n.ID == node {
			return n, nil
		}
	}
	return rest.NodeInfo{}, &reject.Rejection{Code: reject.NodeNotFound, Detail: fmt.Sprintf("there is no node %d any more", node)}
}

// MoveReplica implements rest.Operator.
func (o *operator) MoveReplica(ctx context.Context, name string, from, to uint64) error {
	s, err := o.shard(ctx, name)
	if err != nil {
		return err
	}
	m := &metapb.PlannedMove{Shard: s.Id, Version: s.Version, To: to, Reason: "asked for"}
	for _, r := range s.Replicas {
		if r.Node == from {
			m.From = r.Id
		}
	}
	target := o.directory.now().nodes[to]
	switch {
	case from != 0 && m.From == 0:
		return &reject.Rejection{Code: reject.ReplicaNotFound, Detail: fmt.Sprintf("node %d has no replica of %s", from, name)}
	case target == nil:
		return &reject.Rejection{Code: reject.NodeNotFound, Detail: fmt.Sprintf("there is no node %d", to)}
	case !cluster.Hosts(target, shard.ID(s.Id).Service()):
		return &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("node %d has the roles %s and does not host %s", to, strings.Join(roles(target), ", "), name)}
	case s.Move != nil:
		return &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("%s is being moved to node %d: wait until that is done", name, s.Move.To.Node)}
	}
	var v metapb.View
	if err := o.tell(ctx, &metapb.Command{Body: &metapb.Command_PlanMoves{PlanMoves: &metapb.PlanMoves{Moves: []*metapb.PlannedMove{m}}}}, &v); err != nil {
		return err
	}
	if len(v.Shards) == 0 {
		return &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("%s cannot be moved to node %d: it is not active, has a replica already, or the shard has just changed", name, to)}
	}
	return nil
}

// shard finds a shard by its name, in the newest view.
func (o *operator) shard(ctx context.Context, name string) (*metapb.Shard, error) {
	if err := o.directory.refresh(ctx); err != nil {
		o.log.Debug("meta shard not read", "err", err) // the view at hand has to do
	}
	id, err := shard.ParseID(name)
	s := o.directory.now().shards[id]
	if err != nil || s == nil {
		return nil, &reject.Rejection{Code: reject.ShardNotFound, Detail: fmt.Sprintf("there is no shard %q", name)}
	}
	return s, nil
}

const recoveryWarning = "Entries that only the missing replicas had are lost, among them orders, stock and money that were answered for; " +
	"what the survivor has and was never answered counts from then on. The missing nodes must not come back with their directories."

// RecoverShard implements rest.Operator.
func (o *operator) RecoverShard(ctx context.Context, name, confirm string) (rest.Recovery, error) {
	quick, cancel := context.WithTimeout(ctx, 2*time.Second) // without a majority of the meta shard nobody answers
	s, err := o.shard(quick, name)
	cancel()
	if err != nil {
		return rest.Recovery{}, err
	}
	id := shard.ID(s.Id)
	plan := rest.Recovery{Shard: name, Warning: recoveryWarning}
	var best replica.Status
	answered := make(map[uint64]bool)
	for _, r := range o.reports() {
		for _, g := range r.Groups {
			if g.Shard != id {
				continue
			}
			answered[r.Node] = true
			plan.Survivors = append(plan.Survivors, r.Node)
			if g.Leader != 0 && uint64(g.Leader) == r.Node {
				return rest.Recovery{}, &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("%s has a leader, node %d: there is nothing to recover", name, r.Node)}
			}
			if plan.Node == 0 || cmp.Or(cmp.Compare(g.LastTerm, best.LastTerm), cmp.Compare(g.Last, best.Last)) > 0 {
				plan.Node, best = r.Node, g
			}
		}
	}
	for _, r := range s.Replicas {
		if !answered[r.Node] {
			plan.Missing = append(plan.Missing, r.Node)
		}
	}
	slices.Sort(plan.Survivors)
	slices.Sort(plan.Missing)
	if plan.Node == 0 {
		return rest.Recovery{}, &reject.Failure{Code: reject.Unavailable, Detail: fmt.Sprintf("no replica of %s answers: there is nothing to recover from", name), RetryAfter: retryAfter}
	}
	if 2*len(plan.Missing) < len(s.Replicas) {
		return rest.Recovery{}, &reject.Rejection{Code: reject.NodeState, Detail: fmt.Sprintf("%s has a majority of its replicas, on the nodes %s: wait for a leader", name, peerList(plan.Survivors))}
	}
	plan.Term, plan.Index = best.LastTerm, best.Last
	plan.Confirm = fmt.Sprintf("recover %s on node %d from term %d, index %d, without the nodes %s", name, plan.Node, plan.Term, plan.Index, peerList(plan.Missing))
	if confirm != plan.Confirm {
		if confirm != "" {
			plan.Warning = "The confirmation is not for this: things have changed, or it was mistyped. " + plan.Warning
		}
		return plan, nil
	}
	o.log.Warn("unsafe recovery confirmed", "what", plan.Confirm)
	if err := o.recoverOn(transport.NodeID(plan.Node), id, s.NextReplica); err != nil {
		return rest.Recovery{}, err
	}
	c := &metapb.RecoverShard{Shard: s.Id, Node: plan.Node, Replica: s.NextReplica, Detail: plan.Confirm}
	if err := o.tell(ctx, &metapb.Command{Body: &metapb.Command_RecoverShard{RecoverShard: c}}, new(metapb.View)); err != nil {
		return rest.Recovery{}, err
	}
	plan.Done = true
	return plan, nil
}

func (o *operator) recoverOn(node transport.NodeID, id shard.ID, number uint64) error {
	type answer struct {
		result shard.Result
		err    error
	}
	answers := make(chan answer, 1)
	q := &request{op: opRecover, shard: id, payload: binary.BigEndian.AppendUint64(nil, number)}
	done := func(r shard.Result, err error) { answers <- answer{r, err} }
	if uint64(node) == o.self {
		o.answer(q, done)
	} else {
		o.router.attempt(node, q, time.Now().Add(stepTimeout), done)
	}
	a := <-answers
	switch {
	case a.err != nil:
		return &reject.Failure{Code: reject.OutcomeUnknown, Detail: fmt.Sprintf("node %d did not answer: %v; ask again what the recovery would do", node, a.err), RetryAfter: retryAfter}
	case !a.result.OK():
		return &reject.Failure{Code: reject.Internal, Detail: fmt.Sprintf("node %d: %s", node, a.result.Detail)}
	}
	return nil
}

// SetDownAfter implements rest.Operator.
func (o *operator) SetDownAfter(ctx context.Context, d time.Duration) error {
	return o.tell(ctx, &metapb.Command{Body: &metapb.Command_SetDownAfter{SetDownAfter: &metapb.SetDownAfter{Ms: d.Milliseconds()}}}, nil)
}

// ClusterEvents implements rest.Operator.
func (o *operator) ClusterEvents(ctx context.Context, after uint64, limit int) ([]rest.ClusterEvent, error) {
	q := &metapb.Query{Body: &metapb.Query_ListEvents{ListEvents: &metapb.ListEvents{After: after, Limit: uint32(max(limit, 0))}}}
	a, err := ask[metapb.EventList](ctx, o.client, shard.NewID(shard.Meta, 0), q, rest.Consistency{})
	if err != nil {
		return nil, err
	}
	var all []rest.ClusterEvent
	for _, e := range a.Value.Events {
		event := rest.ClusterEvent{Seq: e.Seq, At: e.At, Type: e.Type, Node: e.Node, Detail: e.Detail}
		if e.Shard != 0 {
			event.Shard = shard.ID(e.Shard).String()
		}
		all = append(all, event)
	}
	return all, nil
}
