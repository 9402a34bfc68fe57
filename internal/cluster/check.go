package cluster

import (
	"fmt"
	"slices"
	"strings"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// CheckState reports why a node may not be brought to a state: "decommission of node 3: order/2 would have 2 of 3 replicas ..." or
// "drain of node 2: node 3 is draining already, and order/1 would have no majority among nodes that are up". Nil when it may.
func CheckState(v *metapb.View, health map[uint64]Observed, node uint64, to metapb.NodeState) error {
	p := newPlanner(DefaultConfig(), v, health, 0)
	i := slices.IndexFunc(p.hosts, func(h *host) bool { return h.Id == node })
	if i < 0 {
		return fmt.Errorf("node %d is unknown", node)
	}
	h := p.hosts[i]
	switch from := h.State; {
	case from == to:
		return nil
	case from == metapb.NodeState_NODE_DECOMMISSIONED:
		return fmt.Errorf("node %d is decommissioned for good: join it anew", node)
	case to == metapb.NodeState_NODE_JOINING:
		return fmt.Errorf("node %d is %s, and has joined already", node, stateName(from))
	case from == metapb.NodeState_NODE_JOINING && to != metapb.NodeState_NODE_DECOMMISSIONED:
		return fmt.Errorf("node %d has not registered yet: start it", node)
	}
	switch to {
	case metapb.NodeState_NODE_DRAINING:
		return p.checkDrain(h)
	case metapb.NodeState_NODE_DECOMMISSIONING:
		return p.checkDecommission(h)
	case metapb.NodeState_NODE_DECOMMISSIONED:
		if p.placed(h) {
			return fmt.Errorf("node %d has %d replica%s: decommission it and let them move, or say that it is lost", node, h.load, plural(h.load, "", "s"))
		}
	}
	return nil
}

// checkDrain makes sure that each shard can do without a node.
func (p *planner) checkDrain(h *host) error {
	for _, g := range p.groups {
		if !slices.ContainsFunc(g.Replicas, func(r *metapb.Replica) bool { return r.Node == h.Id }) {
			continue
		}
		up := 0
		var down []string
		for _, r := range g.Replicas {
			o := p.host(r.Node)
			switch {
			case o == h:
			case o == nil:
				down = append(down, fmt.Sprintf("node %d is unknown", r.Node))
			case o.State == metapb.NodeState_NODE_DRAINING:
				down = append(down, fmt.Sprintf("node %d is draining already", r.Node))
			case !o.member():
				down = append(down, fmt.Sprintf("node %d is %s", r.Node, stateName(o.State)))
			case o.health.Health >= Unhealthy:
				down = append(down, fmt.Sprintf("node %d is %s", r.Node, o.health.Health))
			default:
				up++
			}
		}
		switch {
		case up > len(g.Replicas)/2:
		case len(g.Replicas) == 1:
			return fmt.Errorf("drain of node %d: it has the only replica of %s", h.Id, g.id)
		case len(down) == 0:
			return fmt.Errorf("drain of node %d: %s has %d replicas and would have no majority", h.Id, g.id, len(g.Replicas))
		default:
			return fmt.Errorf("drain of node %d: %s, and %s would have no majority among nodes that are up", h.Id, strings.Join(down, ", "), g.id)
		}
	}
	return nil
}

// checkDecommission makes sure that each shard finds another place for what a node has, as good as that.
func (p *planner) checkDecommission(h *host) error {
	for i, s := range p.services {
		if h.takes[i] && h.stays() {
			if s.members == 1 {
				return fmt.Errorf("decommission of node %d: %s would have no node left; add a node first", h.Id, s.id)
			}
			if after := odd(min(s.members-1, int(p.cluster.GetReplicas()))); after < s.wanted {
				return fmt.Errorf("decommission of node %d: %s would have %d of %d replicas; add a node first", h.Id, p.first(i), s.members-1, s.wanted)
			}
		}
	}
	for _, g := range p.groups {
		if !slices.Contains(g.at, h) {
			continue
		}
		if !g.majority() {
			return fmt.Errorf("decommission of node %d: %s has no majority, %d of its %d replicas %s up, so that nothing can be moved", h.Id, g.id, g.live, len(g.Replicas), plural(g.live, "is", "are"))
		}
		moving, free := 0, 0
		for _, o := range g.at {
			if o == nil || o == h || !o.stays() {
				moving++
			}
		}
		for _, o := range p.hosts {
			if o != h && o.takes[g.service] && o.State == metapb.NodeState_NODE_ACTIVE && o.alive() && !slices.Contains(g.at, o) {
				free++
			}
		}
		if free < moving {
			return fmt.Errorf("decommission of node %d: %s would have %d of %d replicas; add a node first: %s", h.Id, g.id, len(g.at)-moving+free, len(g.at), p.why(g))
		}
		if had, has := p.zones(g, nil), p.zones(g, h); h.Zone != "" && min(has, len(g.at)) < min(had, len(g.at)) {
			return fmt.Errorf("decommission of node %d: it is the last of zone %s for %s, which would have to put %d replicas into %d zone%s; add a node there first",
				h.Id, h.Zone, g.id, len(g.at), has, plural(has, "", "s"))
		}
	}
	return nil
}

// first returns the first shard of a service.
func (p *planner) first(service int) shard.ID {
	for _, g := range p.groups {
		if g.service == service {
			return g.id
		}
	}
	return 0
}

// zones counts the failure domains that a group may be in, without a node.
func (p *planner) zones(g *group, without *host) int {
	seen := make(map[int]bool)
	for _, h := range p.hosts {
		if h != without && h.takes[g.service] && h.stays() {
			seen[h.zone] = true
		}
	}
	return len(seen)
}

func (p *planner) host(id uint64) *host {
	for _, h := range p.hosts {
		if h.Id == id {
			return h
		}
	}
	return nil
}

// why says why no node can take a replica of a group: "5 nodes host order: 3 have one, 1 is draining, 1 is unhealthy".
func (p *planner) why(g *group) string {
	var all, have int
	var others []string
	counts := make(map[string]int)
	for _, h := range p.hosts {
		if !h.takes[g.service] || h.State == metapb.NodeState_NODE_DECOMMISSIONED {
			continue
		}
		all++
		var word string
		switch {
		case slices.Contains(g.at, h):
			have++
			continue
		case h.State != metapb.NodeState_NODE_ACTIVE:
			word = stateName(h.State)
		case h.health.Health != Healthy:
			word = h.health.Health.String()
		default:
			word = "free"
		}
		if counts[word]++; counts[word] == 1 {
			others = append(others, word)
		}
	}
	hosts := fmt.Sprintf("%d node%s %s", all, plural(all, " hosts", "s host"), p.services[g.service].id)
	switch {
	case all == 0:
		return fmt.Sprintf("no node hosts %s", p.services[g.service].id)
	case have == all && all == 1:
		return hosts + " and has one"
	case have == all:
		return hosts + ", all have one"
	}
	parts := []string{fmt.Sprintf("%d %s one", have, plural(have, "has", "have"))}
	for _, word := range others {
		parts = append(parts, fmt.Sprintf("%d %s %s", counts[word], plural(counts[word], "is", "are"), word))
	}
	return hosts + ": " + strings.Join(parts, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// stateName is the word for a state: "draining".
func stateName(s metapb.NodeState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "NODE_"))
}

// String returns the word for it: "unhealthy".
func (h Health) String() string {
	switch h {
	case Healthy:
		return "healthy"
	case Suspect:
		return "suspect"
	case Unhealthy:
		return "unhealthy"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("health %d", uint8(h))
}
