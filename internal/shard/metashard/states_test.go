package metashard

import (
	"fmt"
	"testing"

	"hanse/api/metapb"
	"hanse/internal/reject"
)

// inState brings a node of c1 to a state and returns its number; it holds replicas unless empty.
func inState(m *meta, state State, empty bool) uint64 {
	id := uint64(3)
	if empty || state == Joining {
		id = read[metapb.JoinAnswer](m.T, m.must(joiner("d"))).Node
		if state != Joining {
			m.must(&metapb.Register{Node: &metapb.Node{Id: id, Boot: 1, Process: 99, Features: 1}})
		}
	}
	switch state {
	case Draining, Decommissioning:
		m.must(&metapb.SetNodeState{Node: id, State: state})
	case Decommissioned:
		m.must(&metapb.SetNodeState{Node: id, State: state, Lost: true})
	}
	return id
}

// What is expected is written out here once more: set[from] has the states that a node may be brought to.
func TestSetNodeStateOfEveryPair(t *testing.T) {
	set := map[State][]State{
		Joining:         {},
		Active:          {Draining, Decommissioning},
		Draining:        {Active, Decommissioning},
		Decommissioning: {Active, Draining, Decommissioned},
		Decommissioned:  {},
	}
	may := func(from, to State) bool {
		for _, s := range set[from] {
			if s == to {
				return true
			}
		}
		return false
	}
	for _, from := range States() {
		for _, to := range append(States(), None, 77) {
			for _, lost := range []bool{false, true} {
				for _, empty := range []bool{false, true} {
					name := fmt.Sprintf("%s to %s, lost %v, empty %v", StateName(from), StateName(to), lost, empty)
					m := newCluster(t)
					id := inState(m, from, empty)
					before := m.look(0)
					want := ""
					switch {
					case lost && to != Decommissioned:
						want = reject.MalformedCommand
					case from == to || lost:
					case !may(from, to) || to == Decommissioned && !empty:
						want = reject.NodeState
					}
					r := m.do(&metapb.SetNodeState{Node: id, State: to, Reason: "why", Lost: lost})
					if r.Code != want {
						t.Errorf("%s: code %q (%s), want %q", name, r.Code, r.Detail, want)
						continue
					}
					after := m.look(0)
					if want != "" || from == to {
						if !after.EqualVT(before) {
							t.Errorf("%s: the view has changed", name)
						}
						continue
					}
					n := read[metapb.Node](t, r)
					if n.State != to || n.StateReason != "why" || n.StateSince != int64(m.Index)*1000 || after.Cluster.Version <= before.Cluster.Version {
						t.Errorf("%s: answered %v", name, n)
					}
					last := m.events(0, maxPage)
					if e := last[len(last)-1]; e.Type != "node."+StateName(to) || e.Node != id || e.Detail != "why" {
						t.Errorf("%s: the journal ends with %v", name, e)
					}
				}
			}
		}
	}
}

// A start is welcome in every state but the last, and so is the node that takes the place of another.
func TestRegisterAndReplaceInEveryState(t *testing.T) {
	for _, state := range States() {
		m := newCluster(t)
		id := inState(m, state, false)
		r := m.register(&metapb.Node{Id: id, Boot: 2, Process: 77, Features: 1})
		want, code := state, ""
		switch state {
		case Joining:
			want = Active
		case Decommissioned:
			code = reject.NodeRemoved
		}
		if r.Code != code {
			t.Errorf("register in state %s: code %q (%s), want %q", StateName(state), r.Code, r.Detail, code)
		} else if code == "" {
			if n := read[metapb.Node](t, r); n.State != want {
				t.Errorf("register in state %s led to %s, want %s", StateName(state), StateName(n.State), StateName(want))
			}
		}
		j := joiner("e")
		j.Node.Replaces = id
		a := read[metapb.JoinAnswer](t, m.must(j))
		for _, n := range a.View.Nodes {
			if n.Id == id && n.State != Decommissioned {
				t.Errorf("replaced in state %s: it is %s", StateName(state), StateName(n.State))
			}
		}
	}
}

// The table has each way once, and leads nowhere from the last state.
func TestTransitionsAreSound(t *testing.T) {
	seen := make(map[string]bool)
	for _, tr := range Transitions() {
		key := fmt.Sprint(tr.From, tr.On, tr.To)
		if seen[key] || tr.From == Decommissioned || tr.To == None || tr.Effect == "" {
			t.Errorf("row %+v", tr)
		}
		seen[key] = true
	}
}
