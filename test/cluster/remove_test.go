package cluster

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hanse/client"
)

func number(id uint64) string { return strconv.FormatUint(id, 10) }

// state waits until a node is in a state, as all that run see it.
func (f *fleet) state(id uint64, want string) {
	f.t.Helper()
	f.until(fmt.Sprintf("node %d is %s", id, want), func() error {
		v, err := f.agreed()
		if err != nil {
			return err
		}
		for _, n := range v.Nodes {
			if n.ID == id && n.State == want {
				return nil
			}
		}
		return fmt.Errorf("nodes %+v, blocked %q", v.Nodes, v.Cluster.Blocked)
	})
}

// health waits until a node is seen to be so, or else so, by all others that run.
func (f *fleet) health(m *member, want ...string) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s is one of %q", m.name, want), func() error {
		for _, by := range f.nodes {
			if by == m || !by.up() {
				continue
			}
			v, err := f.overview(by)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(v.Nodes, func(n client.Node) bool { return n.REST == m.addr(0) })
			if i < 0 || !slices.Contains(want, v.Nodes[i].Health) {
				return fmt.Errorf("for %s it is %+v", by.name, v.Nodes)
			}
		}
		return nil
	})
}

// hosting says which nodes have replicas of a shard, as planned.
func (v view) hosting(id string) (nodes []uint64) {
	for _, sh := range v.shards {
		if sh.ID == id {
			for _, r := range sh.Replicas {
				nodes = append(nodes, r.Node)
			}
		}
	}
	slices.Sort(nodes)
	return nodes
}

// leader finds the node that leads a shard.
func (f *fleet) leader(id string) (leader *member) {
	f.t.Helper()
	f.until(id+" has a leader", func() error {
		v, err := f.agreed()
		if err != nil {
			return err
		}
		for _, sh := range v.shards {
			for _, n := range v.Nodes {
				if sh.ID == id && n.ID == sh.Leader {
					leader = f.nodes[slices.IndexFunc(f.nodes, func(m *member) bool { return m.addr(0) == n.REST && m.running() })]
					return nil
				}
			}
		}
		return fmt.Errorf("shards %+v", v.shards)
	})
	return leader
}

// happened says whether the journal has an event about a node or shard.
func (f *fleet) happened(kind, about, detail string) {
	f.t.Helper()
	events, err := f.client().ClusterEvents(f.t.Context(), 0, 1000)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == kind && (e.Shard == about || number(e.Node) == about) && strings.Contains(e.Detail, detail) {
			return
		}
	}
	f.t.Errorf("the journal has no %s of %s with %q: %+v", kind, about, detail, events)
}

func TestNodesGo(t *testing.T) {
	slow(t)
	f := newFleet(t)
	nodes := f.found(3, few...)
	a, b, c := nodes[0], nodes[1], nodes[2]
	f.makeToken()
	d, e := f.member("d"), f.member("e")
	var deaf *member
	if err := f.serves(a, b, c); err != nil {
		t.Fatal(err)
	}

	f.run("drains that would stop a shard are refused", func(t *testing.T) {
		f.command(0, []string{"node", "drain", "2", "--wait"}, "node 2: draining, leads nothing")
		f.command(1, []string{"node", "drain", "3"}, "drain of node 3: node 2 is draining already, and meta/0 would have no majority")
		f.command(1, []string{"node", "drain", "77"}, "there is no node 77")
		if err := f.serves(a, b, c); err != nil {
			t.Error(err)
		}
		f.command(0, []string{"node", "activate", "2"}, "node 2: active")
		f.balanced()
	})
	f.run("the last that makes three copies stays", func(t *testing.T) {
		f.command(1, []string{"node", "decommission", "3"}, "decommission of node 3: meta/0 would have 2 of 3 replicas; add a node first")
		f.command(1, []string{"node", "decommission", "3", "--dry-run"}, "add a node first")
	})
	f.run("a node that is up is not forgotten", func(t *testing.T) {
		f.command(1, []string{"node", "forget", "3"}, "would never be heard again")
		f.command(1, []string{"node", "forget", "3", "--confirm", "node 3 is lost"}, "node 3 is up: only a node that is gone can be forgotten")
	})
	f.run("decommissioned, it stops by itself", func(t *testing.T) {
		d.join()
		e.join()
		f.ready()
		f.balanced()
		id := f.id(d)
		f.command(0, []string{"node", "decommission", number(id), "--dry-run"}, "can be decommissioned")
		f.command(0, []string{"node", "decommission", number(id), "--wait", "--reason", "too old"}, "node "+number(id)+": decommissioned")
		d.ended(0, "this node has been decommissioned and stops", "node stopped")
		f.ready()
		f.balanced()
		d.start()
		d.ended(1, "the cluster refuses this node: .*node "+number(id)+" has been removed from the cluster .too old.*join as a new node")
		d.start("--join", a.addr(0), "--join-token", f.token) // its directory makes it the old one
		d.ended(1, "removed from the cluster")
	})
	f.run("decommissioned while it hears nothing", func(t *testing.T) {
		d = f.member("d2")
		d.join()
		f.ready()
		id := f.id(d)
		d.pause()
		f.health(d, client.Dead)
		f.command(0, []string{"node", "decommission", number(id), "--wait"}, "node "+number(id)+": decommissioned")
		deaf = d
	})
	f.run("the work goes on when the leader of the plan dies", func(t *testing.T) {
		d = f.member("d3")
		d.join()
		f.ready()
		f.balanced()
		id := f.id(d)
		f.command(0, []string{"node", "decommission", number(id)}, "decommissioning")
		leader := f.leader("meta/0")
		if leader == d {
			leader = b // d gives it away now
		}
		leader.kill()
		f.state(id, client.Decommissioned)
		d.ended(0, "this node has been decommissioned")
		leader.start()
		f.ready()
		f.balanced()
	})
	f.run("and one that heard nothing of its end learns of it", func(t *testing.T) {
		id := uint64(6)
		f.until("its farewell is over", func() error { return f.dismissed(a, id) })
		deaf.resume()
		deaf.ended(1, "the cluster refuses this node: .*node 6 has been removed from the cluster")
		f.ready()
	})
	f.run("a new node takes the place of one whose disk is lost", func(t *testing.T) {
		id := f.id(c)
		f.command(1, []string{"node", "replace", number(id)}, "let a new node join")
		c.kill()
		if err := os.RemoveAll(c.dir); err != nil {
			t.Fatal(err)
		}
		f.health(c, client.Unhealthy, client.Dead)
		out := f.command(0, []string{"node", "replace", number(id)}, "--replace "+number(id))
		_, rest, _ := strings.Cut(out, "HANSE_JOIN_TOKEN=")
		f.token, _, _ = strings.Cut(rest, " ")
		successor := f.member("c2")
		successor.join("--replace", number(id))
		f.ready()
		f.balanced()
		f.state(id, client.Decommissioned)
		f.happened("node.decommissioned", number(id), "replaced by node "+number(f.id(successor)))
		f.audit()
		c.start(c.founding...) // an empty directory is no way back
		c.ended(1, "the cluster refuses this node: .*removed from the cluster .*replaced by node")
	})
	f.run("one that is gone is forgotten", func(t *testing.T) {
		id := f.id(e)
		e.kill()
		f.health(e, client.Unhealthy, client.Dead)
		f.command(0, []string{"node", "forget", number(id), "--confirm", "node " + number(id) + " is lost", "--reason", "sold"}, "decommissioned")
		f.ready()
		f.balanced()
		e.start()
		e.ended(1, "removed from the cluster .*sold")
		f.audit()
		if err := f.serves(a, b); err != nil {
			t.Error(err)
		}
	})
}

// farewell is how long a node that has been removed is still answered, and a bit.
const farewell = 11 * time.Second

// dismissed says whether a node that has been removed may still be answered.
func (f *fleet) dismissed(by *member, id uint64) error {
	v, err := f.overview(by)
	if err != nil {
		return err
	}
	for _, n := range v.Nodes {
		if n.ID == id && time.Since(n.StateSince) < farewell {
			return fmt.Errorf("it has been %s since %v", n.State, n.StateSince)
		}
	}
	return nil
}
