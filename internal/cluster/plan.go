package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// Plan says what the meta shard should be told next. Health has an entry for each node that was observed; one without is taken for
// healthy. Now is in ms since 1970. The same input gives the same plan, and a plan that has been carried out gives an empty one.
func Plan(cfg Config, v *metapb.View, health map[uint64]Observed, now int64) Actions {
	if v.GetCluster() == nil {
		return Actions{}
	}
	p := newPlanner(cfg, v, health, now)
	p.giveUp()
	p.repair()
	p.sayEven()
	p.sayProviders()
	p.empty()
	calm := p.calm()
	if calm {
		p.spread()
		p.balance()
	}
	p.preferLeaders(calm && p.moves == 0)
	p.actions.Features = p.features()
	if more := len(p.actions.Blocked) - maxBlocked; more > 0 {
		p.actions.Blocked = append(p.actions.Blocked[:maxBlocked], fmt.Sprintf("and %d more", more))
	}
	return p.actions
}

// maxBlocked is how much of what cannot be done is told: people read the first lines.
const maxBlocked = 20

// planner is a view made ready for questions, and the plan so far. Nodes are numbered by their place in the view, and services by
// their first shard, so that counts are slices.
type planner struct {
	cfg      Config
	now      int64
	cluster  *metapb.Cluster
	hosts    []*host
	services []service
	groups   []*group
	moves    int // under way and planned
	actions  Actions
}

type service struct {
	id shard.Service
	// members is how many nodes host it and stay, wanted how many replicas its shards should have.
	members, wanted int
}

// host is a node. Its load counts replicas as they will be when all moves are over.
type host struct {
	*metapb.Node
	index              int
	health             Observed
	zone               int // equal for nodes of one failure domain; a node without a zone is one of its own
	takes              []bool
	load               int
	loads              []int // by service
	incoming, outgoing int   // moves
	replicas           []slot
}

// slot is a replica that may be moved.
type slot struct {
	g   *group
	pos int
}

// group is a shard. At has the host of each of its replicas, in their order, nil for an unknown one; for a group that is being
// moved, which is left alone, as it will be.
type group struct {
	*metapb.Shard
	id      shard.ID
	service int
	at      []*host
	live    int
	moving  bool
	leaving *host // by the move, nil for none
	coming  *host
}

func newPlanner(cfg Config, v *metapb.View, health map[uint64]Observed, now int64) *planner {
	p := &planner{cfg: cfg, now: now, cluster: v.Cluster, hosts: make([]*host, len(v.Nodes)), groups: make([]*group, len(v.Shards))}
	if after := v.Cluster.GetDownAfter(); after > 0 {
		p.cfg.DownAfter = after
	}
	byID := make(map[uint64]*host, len(v.Nodes))
	zones := make(map[string]int)
	for i, n := range v.Nodes {
		h := &host{Node: n, index: i, health: health[n.Id], zone: i}
		if n.Zone != "" {
			if _, known := zones[n.Zone]; !known {
				zones[n.Zone] = i
			}
			h.zone = zones[n.Zone]
		}
		p.hosts[i], byID[n.Id] = h, h
	}
	for i, s := range v.Shards {
		g := &group{Shard: s, id: shard.ID(s.Id), at: make([]*host, len(s.Replicas), len(s.Replicas)+1)}
		g.service = p.service(g.id.Service())
		for k, r := range s.Replicas {
			if h := byID[r.Node]; h != nil {
				g.at[k] = h
				if h.alive() {
					g.live++
				}
			}
		}
		p.groups[i] = g
	}
	for _, h := range p.hosts {
		h.loads, h.takes = make([]int, len(p.services)), make([]bool, len(p.services))
		for i := range p.services {
			h.takes[i] = Hosts(h.Node, p.services[i].id)
			if h.takes[i] && h.stays() {
				p.services[i].members++
			}
		}
	}
	for i := range p.services {
		s := &p.services[i]
		s.wanted = odd(min(s.members, int(v.Cluster.GetReplicas())))
	}
	for _, g := range p.groups {
		if m := g.Move; m != nil {
			p.begun(g, slices.IndexFunc(g.Replicas, func(r *metapb.Replica) bool { return r.Id == m.From.GetId() }), byID[m.To.GetNode()])
		}
		for pos, h := range g.at {
			if h != nil {
				h.load++
				h.loads[g.service]++
				h.replicas = append(h.replicas, slot{g, pos})
			}
		}
	}
	return p
}

// service numbers a service.
func (p *planner) service(id shard.Service) int {
	i := slices.IndexFunc(p.services, func(s service) bool { return s.id == id })
	if i < 0 {
		i = len(p.services)
		p.services = append(p.services, service{id: id})
	}
	return i
}

// odd rounds down: an even number of voters bears no more failures than one fewer.
func odd(n int) int { return max(0, n-(n+1)%2) }

// begun takes a move into account that is under way or has just been planned. Pos is -1 when a replica is added. One that cannot go
// on for now, because a majority is not up or the target is dead, does not count against the limits: others would wait for it.
func (p *planner) begun(g *group, pos int, to *host) {
	g.moving, g.coming = true, to
	var from *host
	if pos >= 0 {
		from = g.at[pos]
		g.leaving, g.at[pos] = from, to
	} else {
		g.at = append(g.at, to)
	}
	if g.majority() && to != nil && to.alive() {
		p.moves++
		to.incoming++
		if from != nil && from.alive() {
			from.outgoing++
		}
	}
}

// move plans a move and counts it.
func (p *planner) move(g *group, pos int, to *host, reason string) {
	m := &metapb.PlannedMove{Shard: g.Id, Version: g.Version, To: to.Id, Reason: reason}
	if pos >= 0 {
		m.From = g.Replicas[pos].Id
		if from := g.at[pos]; from != nil {
			from.load--
			from.loads[g.service]--
		}
	}
	to.load++
	to.loads[g.service]++
	p.begun(g, pos, to)
	p.actions.Moves = append(p.actions.Moves, m)
}

func (p *planner) block(format string, args ...any) {
	p.actions.Blocked = append(p.actions.Blocked, fmt.Sprintf(format, args...))
}

func (g *group) majority() bool { return g.live > len(g.Replicas)/2 }

// alive says that a node may still have what it had; it need not be well.
func (h *host) alive() bool { return h.member() && h.health.Health != Dead }

// member says that a node belongs to the cluster and has been heard of.
func (h *host) member() bool {
	return h.State != metapb.NodeState_NODE_JOINING && h.State != metapb.NodeState_NODE_DECOMMISSIONED
}

// stays says that replicas on a node are where they should be.
func (h *host) stays() bool {
	return h.State == metapb.NodeState_NODE_ACTIVE || h.State == metapb.NodeState_NODE_DRAINING
}

// welcoming says that a node may be given replicas.
func (h *host) welcoming() bool {
	return h.State == metapb.NodeState_NODE_ACTIVE && h.health.Health == Healthy
}

// fits says that a node may be given a replica of a group.
func (h *host) fits(g *group) bool {
	return h.takes[g.service] && h.welcoming() && !slices.Contains(g.at, h)
}

func (p *planner) roomTo(h *host) bool {
	return p.moves < p.cfg.MaxMoves && h.incoming < p.cfg.MaxIncoming
}

// roomFrom says that a replica may leave a node. A dead one is not burdened by that.
func (p *planner) roomFrom(h *host) bool {
	return p.moves < p.cfg.MaxMoves && (h == nil || !h.alive() || h.outgoing < p.cfg.MaxOutgoing)
}

// beside counts the replicas of a group that are in a zone, but for that at pos.
func (g *group) beside(zone, pos int) (n int) {
	for i, h := range g.at {
		if i != pos && h != nil && h.zone == zone {
			n++
		}
	}
	return n
}

// target returns the node that should take a replica of a group in place of that at pos, -1 for one more, and how many others it
// will be beside in its zone; nil when no node can. The best zone goes before all, then a node that has come in the old one's place, then
// the lowest load. What is urgent does not wait for the best of several nodes that are as good for safety.
func (p *planner) target(g *group, pos int, urgent bool) (best *host, beside int) {
	var replaced uint64
	if pos >= 0 && g.at[pos] != nil {
		replaced = g.at[pos].Id
	}
	better := func(a, b *host) int {
		full := 0
		if urgent {
			full = compareBool(!p.roomTo(a), !p.roomTo(b))
		}
		return cmp.Or(full,
			compareBool(a.Replaces != replaced || replaced == 0, b.Replaces != replaced || replaced == 0),
			cmp.Compare(a.load, b.load), cmp.Compare(a.loads[g.service], b.loads[g.service]),
			cmp.Compare(g.hash(b), g.hash(a)))
	}
	for _, h := range p.hosts {
		if !h.fits(g) {
			continue
		}
		n := g.beside(h.zone, pos)
		if best == nil || n < beside || n == beside && better(h, best) < 0 {
			best, beside = h, n
		}
	}
	return best, beside
}

// compareBool sorts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// hash decides between nodes that are alike for a group (rendezvous hashing), and anew for each replica, so that a node that fails to
// take one is not asked for ever.
func (g *group) hash(h *host) uint64 {
	return mix(mix(uint64(g.Id)<<32^g.NextReplica) ^ h.Id)
}

// mix scatters a number's bits: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// giveUp ends moves that lead nowhere, or that nobody needs any more, unless they are so far that they can only go forward. What is
// still to be done is planned anew when they have ended.
func (p *planner) giveUp() {
	for _, g := range p.groups {
		if g.Move == nil || g.Move.Ready {
			continue
		}
		if why := p.hopeless(g); why != "" {
			p.actions.GiveUp = append(p.actions.GiveUp, &metapb.FinishMove{Shard: g.Id, Replica: g.Move.To.Id, Reason: why})
		}
	}
}

// hopeless says why a move should be given up, empty when it should go on.
func (p *planner) hopeless(g *group) string {
	to, from := g.coming, g.leaving
	switch took := p.now - g.Move.StartedAt; {
	case to == nil:
		return fmt.Sprintf("node %d is unknown", g.Move.To.Node)
	case to.State != metapb.NodeState_NODE_ACTIVE:
		return fmt.Sprintf("node %d is %s", to.Id, stateName(to.State))
	case !to.alive():
		return fmt.Sprintf("node %d is dead", to.Id)
	case took > p.cfg.GiveUpAfter:
		return fmt.Sprintf("node %d is not ready after %d s", to.Id, took/1000)
	case from == nil || from.State != metapb.NodeState_NODE_ACTIVE:
		return ""
	case g.Move.Reason == "decommission":
		return fmt.Sprintf("node %d stays", from.Id)
	case g.Move.Reason == "roles" && from.takes[g.service]:
		return fmt.Sprintf("node %d hosts %s again", from.Id, g.id.Service())
	case g.Move.Reason == "repair" && from.health.Health == Healthy:
		return fmt.Sprintf("node %d is back", from.Id)
	}
	return ""
}

// repair replaces replicas that are lost and adds those that are missing, the shards with the fewest live replicas first.
func (p *planner) repair() {
	order := slices.Clone(p.groups)
	slices.SortStableFunc(order, func(a, b *group) int { return cmp.Compare(a.live, b.live) })
	members, dead := 0, 0
	for _, h := range p.hosts {
		if h.member() {
			members++
			if !h.alive() {
				dead++
			}
		}
	}
	held := false
	for _, g := range order {
		if !g.majority() {
			p.block("%s has no majority: %d of its %d replicas %s up", g.id, g.live, len(g.Replicas), plural(g.live, "is", "are"))
			continue
		}
		if g.moving {
			continue
		}
		lost := slices.IndexFunc(g.at, func(h *host) bool { return h == nil || h.State == metapb.NodeState_NODE_DECOMMISSIONED })
		if lost < 0 {
			lost = slices.IndexFunc(g.at, p.overdue)
		}
		switch {
		case lost >= 0:
			held = p.rebuild(g, lost, dead*3 >= members) || held
		case len(g.at) < p.services[g.service].wanted:
			p.grow(g)
		}
	}
	if held {
		p.block("%d of %d nodes %s dead, and nothing is rebuilt, for that is rather the network or the power: decommission those that are gone for good",
			dead, members, plural(dead, "looks", "look"))
	}
}

// overdue reports whether a node has been dead for so long that its replicas are to be rebuilt.
func (p *planner) overdue(h *host) bool {
	return h.member() && h.health.Health == Dead && p.now-h.health.Since >= p.cfg.DownAfter
}

// rebuild replaces a lost replica. When so many nodes look dead that they will rather be back, it does so only for a node that is
// known to be gone, and reports whether that holds it up.
func (p *planner) rebuild(g *group, pos int, outage bool) (held bool) {
	to, beside := p.target(g, pos, true)
	from := g.at[pos]
	mayReturn := from != nil && from.member()
	switch {
	case to == nil:
		p.block("%s has %d of %d replicas, and no node can take another: %s", g.id, g.live, max(len(g.at), p.services[g.service].wanted), p.why(g))
	case mayReturn && outage:
		return true
	case mayReturn && p.zoneDead(from) && beside > g.beside(from.zone, pos):
		// Were it rebuilt beside another, the zone's return would move as much again.
		p.block("%s has %d of %d replicas: zone %s is down altogether, and a replica elsewhere would stand beside another in zone %s",
			g.id, g.live, len(g.at), from.Zone, to.Zone)
	case p.roomTo(to):
		p.move(g, pos, to, "repair")
	}
	return false
}

// zoneDead reports whether all nodes of a node's zone are dead.
func (p *planner) zoneDead(h *host) bool {
	return h.Zone != "" && !slices.ContainsFunc(p.hosts, func(o *host) bool { return o.Zone == h.Zone && o.alive() })
}

// grow adds a replica, if there are nodes enough to come to an odd number: with two of two, either one's failure stops the shard.
func (p *planner) grow(g *group) {
	free := 0
	for _, h := range p.hosts {
		if h.fits(g) {
			free++
		}
	}
	to, _ := p.target(g, -1, true)
	if needed := 1 + len(g.at)%2; free < needed {
		also := "no node can take another"
		if free > 0 {
			also = "only one node can take another, which would make an even number"
		}
		p.block("%s has %d of %d replicas, and %s: %s", g.id, g.live, p.services[g.service].wanted, also, p.why(g))
	} else if p.roomTo(to) {
		p.move(g, -1, to, "repair")
	}
}

// sayEven says that the last node of an even number adds no copy: from one node to two nothing is safer.
func (p *planner) sayEven() {
	for n := 2; n < int(p.cluster.GetReplicas()); n += 2 {
		var names []string
		for _, s := range p.services {
			if s.members == n {
				names = append(names, s.id.String())
			}
		}
		if len(names) > 0 {
			p.block("%d nodes host %s, and their shards get %d of %d copies, for an even number bears no more failures: add another node",
				n, strings.Join(names, ", "), odd(n), p.cluster.GetReplicas())
		}
	}
}

// sayProviders says that not all nodes which host payments move money at the same provider: each would charge, and ask for what it does not know, where
// it happens to be.
func (p *planner) sayProviders() {
	var providers []string
	nodes := make(map[string][]string)
	for _, h := range p.hosts {
		if h.Provider == "" || !h.alive() || !Hosts(h.Node, shard.Payment) {
			continue
		}
		if nodes[h.Provider] == nil {
			providers = append(providers, h.Provider)
		}
		nodes[h.Provider] = append(nodes[h.Provider], strconv.FormatUint(h.Id, 10))
	}
	if len(providers) < 2 {
		return
	}
	for i, name := range providers {
		on := "node"
		if len(nodes[name]) > 1 {
			on = "nodes"
		}
		providers[i] = fmt.Sprintf("to %s on %s %s", name, on, strings.Join(nodes[name], ", "))
	}
	p.block("payments go %s: start all nodes with the same --psp, for no provider knows what another has charged", strings.Join(providers, ", "))
}

// empty moves replicas away from nodes that are being decommissioned, or that are not to host them by their roles, and says when nothing is
// left on one that is to go.
func (p *planner) empty() {
	for _, g := range p.groups {
		pos := slices.IndexFunc(g.at, func(h *host) bool { return h != nil && h.evicts(g) != "" })
		if pos < 0 || g.moving || !g.majority() {
			continue
		}
		from := g.at[pos]
		to, _ := p.target(g, pos, false)
		switch reason := from.evicts(g); {
		case to != nil && p.roomFrom(from) && p.roomTo(to):
			p.move(g, pos, to, reason)
		case to != nil:
		case reason == "roles":
			p.block("node %d has %s, which its roles exclude, and no node can take it: %s", from.Id, g.id, p.why(g))
		default:
			p.block("node %d cannot give %s away: no node can take it: %s", from.Id, g.id, p.why(g))
		}
	}
	for _, h := range p.hosts {
		if h.State == metapb.NodeState_NODE_DECOMMISSIONING && !p.placed(h) {
			p.actions.States = append(p.actions.States, &metapb.SetNodeState{Node: h.Id, State: metapb.NodeState_NODE_DECOMMISSIONED, Reason: cmp.Or(h.StateReason, "nothing is placed on it any more")})
		}
	}
}

// evicts says why a node should not keep a replica of a group, empty when it should.
func (h *host) evicts(g *group) string {
	switch {
	case h.State == metapb.NodeState_NODE_DECOMMISSIONING:
		return "decommission"
	case h.stays() && !h.takes[g.service]:
		return "roles"
	}
	return ""
}

// placed reports whether the plan has a replica on a node, or one on its way to or from there.
func (p *planner) placed(h *host) bool {
	return h.load > 0 || slices.ContainsFunc(p.groups, func(g *group) bool { return g.leaving == h })
}

// calm reports whether replicas may be moved that are safe where they are: nothing is to be repaired or emptied or out of place, all nodes are
// well, and all know the same features.
func (p *planner) calm() bool {
	var first *host
	for _, h := range p.hosts {
		if !h.member() {
			continue
		}
		first = cmp.Or(first, h)
		if h.health.Health != Healthy || h.State == metapb.NodeState_NODE_DECOMMISSIONING && p.placed(h) || h.Features != first.Features {
			return false
		}
	}
	for _, g := range p.groups {
		if g.live < len(g.Replicas) || len(g.Replicas) < p.services[g.service].wanted || g.Move.GetReason() == "repair" || slices.Contains(g.at, nil) {
			return false
		}
		if g.leaving != nil && g.leaving.evicts(g) == "roles" {
			return false
		}
	}
	return true
}

// spread moves replicas that share a zone to where fewer are. What counts is where nodes are, not how they fare, so that a zone that
// is away for a moment moves nothing.
func (p *planner) spread() {
	for _, g := range p.groups {
		if g.moving {
			continue
		}
		best, worst := -1, 0
		for pos, h := range g.at {
			if h.State != metapb.NodeState_NODE_ACTIVE {
				continue
			}
			n := g.beside(h.zone, pos)
			if n > worst || n == worst && n > 0 && h.load > g.at[best].load {
				best, worst = pos, n
			}
		}
		if best < 0 {
			continue
		}
		if to, beside := p.target(g, best, false); to != nil && beside < worst && p.roomFrom(g.at[best]) && p.roomTo(to) {
			p.move(g, best, to, "zone")
		}
	}
}

// balance evens the load out, by moves that each are part of a shortest way to do so.
func (p *planner) balance() {
	for p.moves < p.cfg.MaxMoves {
		s, to := p.shift()
		if to == nil || !p.roomFrom(s.g.at[s.pos]) || !p.roomTo(to) {
			return // another move instead would be one more in the end
		}
		p.move(s.g, s.pos, to, "balance")
	}
}

// shift returns the next move that evens the load out, nil when there is none: the last one of the shortest chain from a node to
// another that has at least two replicas fewer. Mostly that is one move; where roles, zones or what a node already has stand in the way, a third
// node gives and takes. Making the last move first keeps all loads within bounds, and leaves a chain that is shorter by one.
func (p *planner) shift() (slot, *host) {
	sources := make([]*host, 0, len(p.hosts))
	for _, h := range p.hosts {
		if h.State == metapb.NodeState_NODE_ACTIVE && h.load > 0 {
			sources = append(sources, h)
		}
	}
	slices.SortStableFunc(sources, func(a, b *host) int {
		return cmp.Or(cmp.Compare(b.load, a.load), compareBool(!p.roomFrom(a), !p.roomFrom(b)))
	})
	// Whoever has been reached without finding a low enough load need not be looked at for a source with less.
	unseen := make([]*host, 0, len(p.hosts))
	for _, h := range p.hosts {
		if h.welcoming() {
			unseen = append(unseen, h)
		}
	}
	via := make([]*host, len(p.hosts))
	for _, source := range sources {
		i := slices.Index(unseen, source)
		if i < 0 {
			continue
		}
		unseen = slices.Delete(unseen, i, i+1)
		for level := []*host{source}; len(level) > 0; {
			var next []*host
			for _, h := range level {
				for _, s := range h.replicas {
					if len(unseen) == 0 {
						break
					}
					unseen = slices.DeleteFunc(unseen, func(to *host) bool {
						if !s.mayMove(to) {
							return false
						}
						via[to.index] = h
						next = append(next, to)
						return true
					})
				}
			}
			var best *host
			for _, h := range next {
				if h.load <= source.load-2 && (best == nil || cmp.Or(cmp.Compare(h.load, best.load), compareBool(!p.roomTo(h), !p.roomTo(best)), cmp.Compare(h.Id, best.Id)) < 0) {
					best = h
				}
			}
			if best != nil {
				return p.choose(via[best.index], best), best
			}
			level = next
		}
	}
	return slot{}, nil
}

// mayMove reports whether a replica may be moved to a node without standing beside more in its zone than before.
func (s slot) mayMove(to *host) bool {
	return !s.g.moving && to.fits(s.g) && s.g.beside(to.zone, s.pos) <= s.g.beside(s.g.at[s.pos].zone, s.pos)
}

// choose picks the replica that one node gives to another: of the service that it has most more of, rather one that does not lead.
func (p *planner) choose(from, to *host) (best slot) {
	better := func(a, b *group) int {
		return cmp.Or(
			cmp.Compare(from.loads[b.service]-to.loads[b.service], from.loads[a.service]-to.loads[a.service]),
			compareBool(a.Leader == from.Id, b.Leader == from.Id),
			cmp.Compare(b.hash(to), a.hash(to)))
	}
	for _, s := range from.replicas {
		if s.mayMove(to) && (best.g == nil || better(s.g, best.g) < 0) {
			best = s
		}
	}
	return best
}

// features returns the feature level to be raised to, 0 for none: what all nodes know. One that has not registered yet, or is dead, may
// come as another program than the one that is known.
func (p *planner) features() uint32 {
	var known []uint32
	for _, h := range p.hosts {
		switch {
		case h.State == metapb.NodeState_NODE_DECOMMISSIONED:
		case !h.alive():
			return 0
		default:
			known = append(known, h.Features)
		}
	}
	if len(known) == 0 || slices.Min(known) <= p.cluster.Features {
		return 0
	}
	return slices.Min(known)
}
