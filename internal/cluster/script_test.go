package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// situation is a cluster that a script describes.
type situation struct {
	view   metapb.View
	health map[uint64]Observed
	now    int64
}

func newSituation() *situation {
	return &situation{view: metapb.View{Cluster: &metapb.Cluster{Id: "test", Replicas: 3, Features: 1}}, health: make(map[uint64]Observed), now: 1_000_000}
}

// describe reads lines such as
//
//	replicas 3
//	nodes 1-3 zone=a
//	node 4 dead=600 state=draining roles=order,payment features=2 replaces=3 psp=instant
//	order/0 on 1 2 3 leader=1 next=7 move=3>4:repair since=100 ready
//
// A replica is a node, its number is that of the node unless written number@node.
func (s *situation) describe(d *datadriven.TestData) {
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "replicas":
			s.view.Cluster.Replicas = uint32(number(d, words[1]))
		case words[0] == "features":
			s.view.Cluster.Features = uint32(number(d, words[1]))
		case words[0] == "node" || words[0] == "nodes":
			lo, hi, ranged := strings.Cut(words[1], "-")
			if !ranged {
				hi = lo
			}
			for id := number(d, lo); id <= number(d, hi); id++ {
				s.node(d, id, words[2:])
			}
		default:
			s.shard(d, words)
		}
	}
}

func number(d *datadriven.TestData, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(d.Pos + ": " + err.Error())
	}
	return n
}

func (s *situation) node(d *datadriven.TestData, id uint64, options []string) {
	n := &metapb.Node{Id: id, Features: 1, RegisteredAt: 1}
	if i := slices.IndexFunc(s.view.Nodes, func(o *metapb.Node) bool { return o.Id == id }); i >= 0 {
		n = s.view.Nodes[i]
	} else {
		s.view.Nodes = append(s.view.Nodes, n)
	}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "zone":
			n.Zone = value
		case "state":
			n.State = metapb.NodeState(metapb.NodeState_value["NODE_"+strings.ToUpper(value)])
		case "roles":
			n.Roles = nil
			for name := range strings.SplitSeq(value, ",") {
				for _, service := range shard.Services() {
					if service.String() == name {
						n.Roles = append(n.Roles, uint32(service))
					}
				}
			}
		case "features":
			n.Features = uint32(number(d, value))
		case "psp":
			n.Provider = value
		case "replaces":
			n.Replaces = number(d, value)
		case "healthy":
			delete(s.health, id)
		case "suspect":
			s.health[id] = Observed{Health: Suspect, Since: s.now}
		case "unhealthy":
			s.health[id] = Observed{Health: Unhealthy, Since: s.now}
		case "dead": // for so many seconds
			s.health[id] = Observed{Health: Dead, Since: s.now - int64(number(d, value))*1000}
		default:
			panic(d.Pos + ": node option " + o)
		}
	}
}

func (s *situation) shard(d *datadriven.TestData, words []string) {
	id, err := shard.ParseID(words[0])
	if err != nil {
		panic(d.Pos + ": " + err.Error())
	}
	sh := &metapb.Shard{Id: uint32(id), Version: 1}
	if i := slices.IndexFunc(s.view.Shards, func(o *metapb.Shard) bool { return o.Id == uint32(id) }); i >= 0 {
		s.view.Shards = slices.Delete(s.view.Shards, i, i+1)
	}
	for _, w := range words[2:] {
		key, value, option := strings.Cut(w, "=")
		switch {
		case !option && w != "ready":
			r := replicaOf(d, w)
			sh.Replicas = append(sh.Replicas, r)
			sh.NextReplica = max(sh.NextReplica, r.Id+1)
		case w == "ready":
			sh.Move.Ready = true
		case key == "leader":
			sh.Leader = number(d, value)
		case key == "next":
			sh.NextReplica = number(d, value)
		case key == "move":
			what, reason, _ := strings.Cut(value, ":")
			from, to, _ := strings.Cut(what, ">")
			sh.Move = &metapb.Move{To: replicaOf(d, to), Reason: reason, StartedAt: s.now}
			sh.NextReplica = max(sh.NextReplica, sh.Move.To.Id+1)
			if from != "" {
				sh.Move.From = replicaOf(d, from)
			}
		case key == "since": // seconds ago
			sh.Move.StartedAt = s.now - int64(number(d, value))*1000
		default:
			panic(d.Pos + ": shard option " + w)
		}
	}
	s.view.Shards = append(s.view.Shards, sh)
	slices.SortFunc(s.view.Shards, func(a, b *metapb.Shard) int { return int(a.Id) - int(b.Id) })
}

func replicaOf(d *datadriven.TestData, s string) *metapb.Replica {
	id, node, numbered := strings.Cut(s, "@")
	if !numbered {
		node = id
	}
	return &metapb.Replica{Id: number(d, id), Node: number(d, node)}
}

func (a Actions) String() string {
	var b strings.Builder
	for _, s := range a.States {
		fmt.Fprintf(&b, "node %d becomes %s: %s\n", s.Node, stateName(s.State), s.Reason)
	}
	for _, m := range a.Moves {
		from := "one more"
		if m.From != 0 {
			from = fmt.Sprintf("replica %d", m.From)
		}
		fmt.Fprintf(&b, "%s: %s to node %d (%s)\n", shard.ID(m.Shard), from, m.To, m.Reason)
	}
	for _, f := range a.GiveUp {
		fmt.Fprintf(&b, "%s: the move to replica %d is given up: %s\n", shard.ID(f.Shard), f.Replica, f.Reason)
	}
	for _, l := range a.Leaders {
		fmt.Fprintf(&b, "%s: node %d should lead\n", shard.ID(l.Shard), l.Node)
	}
	if a.Features != 0 {
		fmt.Fprintf(&b, "features rise to %d\n", a.Features)
	}
	for _, s := range a.Blocked {
		fmt.Fprintf(&b, "blocked: %s\n", s)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// facts reads words such as "leads joint 1 2 3? 4@5:learner? commit=9": members of a group, with a question mark after one that is not
// caught up and an exclamation mark after one that is not heard of.
func facts(d *datadriven.TestData, text string, replica uint64) Group {
	g := Group{Replica: replica}
	for _, w := range strings.Fields(text) {
		switch {
		case w == "leads":
			g.Leads = true
		case w == "joint":
			g.Joint = true
		case strings.HasPrefix(w, "commit="):
			g.Commit = number(d, w[7:])
		default:
			m := Member{Active: true, CaughtUp: true, Voter: true}
			var cut bool
			if w, cut = strings.CutSuffix(w, "!"); cut {
				m.Active, m.CaughtUp = false, false
			} else if w, cut = strings.CutSuffix(w, "?"); cut {
				m.CaughtUp = false
			}
			w, match, _ := strings.Cut(w, "=")
			if match != "" {
				m.Match = number(d, match)
			}
			if w, cut = strings.CutSuffix(w, ":learner"); cut {
				m.Voter, m.Learner = false, true
			}
			r := replicaOf(d, w)
			m.ID, m.Node = r.Id, r.Node
			g.Members = append(g.Members, m)
		}
	}
	return g
}

// Each script tells of one situation after another: "cluster" begins a new one, "change" goes on with the last.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := newSituation()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "cluster": // what is planned
				s = newSituation()
				s.describe(d)
				return Plan(DefaultConfig(), &s.view, s.health, s.now).String()
			case "change":
				s.describe(d)
				return Plan(DefaultConfig(), &s.view, s.health, s.now).String()
			case "carry-out": // everything at once, until nothing is planned any more
				return s.carryOut(t)
			case "next": // lines of: node replica facts
				var b strings.Builder
				for line := range strings.Lines(d.Input) {
					words := strings.Fields(line)
					self, replica := number(d, words[0]), number(d, words[1])
					g := facts(d, strings.Join(words[2:], " "), replica)
					fmt.Fprintln(&b, Next(s.view.Shards[0], self, g))
				}
				return b.String()
			case "progress":
				doing, percent := MoveProgress(s.view.Shards[0], facts(d, d.Input, 1))
				return fmt.Sprintf("%s, %d %%\n", doing, percent)
			case "may": // may node=1 be=draining
				var node uint64
				var state string
				d.ScanArgs(t, "node", &node)
				d.ScanArgs(t, "be", &state)
				if err := CheckState(&s.view, s.health, node, metapb.NodeState(metapb.NodeState_value["NODE_"+strings.ToUpper(state)])); err != nil {
					return err.Error() + "\n"
				}
				return "yes\n"
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

// carryOut does what is planned at once, again and again, and returns all that was done and where things are then.
func (s *situation) carryOut(t *testing.T) string {
	var b strings.Builder
	for range 1000 {
		a := Plan(DefaultConfig(), &s.view, s.health, s.now)
		for _, m := range a.Moves {
			fmt.Fprintf(&b, "%s\n", strings.TrimSpace(Actions{Moves: []*metapb.PlannedMove{m}}.String()))
		}
		if !carryOut(&s.view, a) {
			fmt.Fprintf(&b, "%s", Actions{Blocked: a.Blocked})
			for _, sh := range s.view.Shards {
				fmt.Fprintf(&b, "%s on", shard.ID(sh.Id))
				for _, r := range sh.Replicas {
					fmt.Fprintf(&b, " %d", r.Node)
				}
				fmt.Fprintf(&b, ", leader %d\n", sh.Leader)
			}
			return b.String()
		}
	}
	t.Fatal("planning does not end")
	return ""
}

// carryOut does all of a plan at once, as the meta shard and the groups would in the end. It reports whether there was anything to do.
func carryOut(v *metapb.View, a Actions) bool {
	for _, m := range a.Moves {
		s := v.Shards[slices.IndexFunc(v.Shards, func(s *metapb.Shard) bool { return s.Id == m.Shard })]
		s.Replicas = slices.DeleteFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == m.From })
		s.Replicas = append(s.Replicas, &metapb.Replica{Id: s.NextReplica, Node: m.To})
		s.NextReplica++
		s.Version++
	}
	for _, f := range a.GiveUp {
		v.Shards[slices.IndexFunc(v.Shards, func(s *metapb.Shard) bool { return s.Id == f.Shard })].Move = nil
	}
	for _, l := range a.Leaders {
		v.Shards[slices.IndexFunc(v.Shards, func(s *metapb.Shard) bool { return s.Id == l.Shard })].Leader = l.Node
	}
	for _, st := range a.States {
		v.Nodes[slices.IndexFunc(v.Nodes, func(n *metapb.Node) bool { return n.Id == st.Node })].State = st.State
	}
	if a.Features != 0 {
		v.Cluster.Features = a.Features
	}
	return len(a.Moves)+len(a.GiveUp)+len(a.Leaders)+len(a.States) > 0 || a.Features != 0
}
