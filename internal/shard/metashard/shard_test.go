package metashard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"hanse/api/metapb"
	"hanse/internal/shard"
	"hanse/internal/shardtest"
)

// meta is a shard with its store.
type meta struct{ *shardtest.Machine }

func newMeta(tb testing.TB) *meta { return &meta{shardtest.New(tb, New())} }

// apply applies one command. The log is as many seconds old as it has entries.
func (m *meta) apply(payload []byte) shard.Result {
	return m.Enter(int64(m.Index+1)*1000, shard.Command{Kind: shard.KindLogic, Payload: payload}).Results[0]
}

// do applies a command, which is one of the messages of api/metapb.
func (m *meta) do(body any) shard.Result { return m.apply(encode(command(body))) }

func command(body any) *metapb.Command {
	switch b := body.(type) {
	case *metapb.Register:
		return &metapb.Command{Body: &metapb.Command_Register{Register: b}}
	case *metapb.Found:
		return &metapb.Command{Body: &metapb.Command_Found{Found: b}}
	case *metapb.Join:
		return &metapb.Command{Body: &metapb.Command_Join{Join: b}}
	case *metapb.SetToken:
		return &metapb.Command{Body: &metapb.Command_SetToken{SetToken: b}}
	case *metapb.SetNodeState:
		return &metapb.Command{Body: &metapb.Command_SetNodeState{SetNodeState: b}}
	case *metapb.PlanMoves:
		return &metapb.Command{Body: &metapb.Command_PlanMoves{PlanMoves: b}}
	case *metapb.ReadyMove:
		return &metapb.Command{Body: &metapb.Command_ReadyMove{ReadyMove: b}}
	case *metapb.FinishMove:
		return &metapb.Command{Body: &metapb.Command_FinishMove{FinishMove: b}}
	case *metapb.PreferLeaders:
		return &metapb.Command{Body: &metapb.Command_PreferLeaders{PreferLeaders: b}}
	case *metapb.RaiseFeatures:
		return &metapb.Command{Body: &metapb.Command_RaiseFeatures{RaiseFeatures: b}}
	case *metapb.RecoverShard:
		return &metapb.Command{Body: &metapb.Command_RecoverShard{RecoverShard: b}}
	case *metapb.Note:
		return &metapb.Command{Body: &metapb.Command_Note{Note: b}}
	case *metapb.SetDownAfter:
		return &metapb.Command{Body: &metapb.Command_SetDownAfter{SetDownAfter: b}}
	}
	panic(fmt.Sprintf("no command: %T", body))
}

func (m *meta) register(n *metapb.Node) shard.Result { return m.do(&metapb.Register{Node: n}) }

// must applies a command that is not refused.
func (m *meta) must(body any) shard.Result {
	m.T.Helper()
	r := m.do(body)
	if !r.OK() {
		m.T.Fatalf("%v: %s: %s", body, r.Code, r.Detail)
	}
	return r
}

func read[T any, P interface {
	*T
	UnmarshalVT([]byte) error
}](tb testing.TB, r shard.Result) P {
	tb.Helper()
	v := P(new(T))
	if err := v.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		tb.Fatalf("%s %s %v", r.Code, r.Detail, err)
	}
	return v
}

func (m *meta) nodes() []*metapb.Node {
	r := m.Query(encode(&metapb.Query{Body: &metapb.Query_ListNodes{ListNodes: &metapb.ListNodes{}}}))
	return read[metapb.NodeList](m.T, r).Nodes
}

func (m *meta) look(newerThan uint64) *metapb.View {
	r := m.Query(encode(&metapb.Query{Body: &metapb.Query_Look{Look: &metapb.Look{NewerThan: newerThan}}}))
	return read[metapb.View](m.T, r)
}

func (m *meta) events(after uint64, limit uint32) []*metapb.Event {
	r := m.Query(encode(&metapb.Query{Body: &metapb.Query_ListEvents{ListEvents: &metapb.ListEvents{After: after, Limit: limit}}}))
	return read[metapb.EventList](m.T, r).Events
}

// token is the hash of a join token.
func token(s string) []byte {
	if s == "" {
		return nil
	}
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// founding is the first state of cluster c1: a meta shard and n of keys, with replicas on nodes 1 to 3, and the join token "t".
func founding(n int) *metapb.Found {
	f := &metapb.Found{Cluster: &metapb.Cluster{
		Id: "c1", Replicas: 3, Secret: bytes.Repeat([]byte{7}, secretBytes), TokenHash: token("t"),
		Layout: []*metapb.ServiceShards{{Service: uint32(shard.Meta), Shards: 1}, {Service: uint32(shard.Keyspace), Shards: uint32(n)}},
	}}
	for _, id := range (shard.Layout{shard.Meta: 1, shard.Keyspace: n}).All() {
		s := &metapb.Shard{Id: uint32(id)}
		for node := range uint64(3) {
			s.Replicas = append(s.Replicas, &metapb.Replica{Id: node + 1, Node: node + 1})
		}
		f.Shards = append(f.Shards, s)
	}
	return f
}

// newCluster is c1 with its nodes 1 to 3 started.
func newCluster(tb testing.TB) *meta {
	m := newMeta(tb)
	m.must(founding(1))
	for id := range uint64(3) {
		m.must(&metapb.Register{Node: &metapb.Node{Id: id + 1, Boot: 1, Process: 10 * (id + 1), Name: fmt.Sprintf("n%d", id+1), Features: 1}})
	}
	return m
}

// joiner is a node that wants to join c1.
func joiner(name string) *metapb.Join {
	return &metapb.Join{TokenHash: token("t"), Node: &metapb.Node{Name: name, Process: 99, Features: 1}}
}

func describe(n *metapb.Node) string {
	s := fmt.Sprintf("node %d %s %s", n.Id, StateName(n.State), n.Name)
	for _, f := range []string{n.Http, n.Peers, n.Gossip, n.Version} {
		if f != "" {
			s += " " + f
		}
	}
	if n.Zone != "" {
		s += " zone " + n.Zone
	}
	if len(n.Roles) > 0 {
		s += fmt.Sprintf(" roles %v", n.Roles)
	}
	if n.Features > 0 {
		s += fmt.Sprintf(" features %d", n.Features)
	}
	s += fmt.Sprintf(" boot %d process %d registered %d s started %d s since %d s",
		n.Boot, n.Process, n.RegisteredAt/1000, n.StartedAt/1000, n.StateSince/1000)
	if n.StateReason != "" {
		s += " because: " + n.StateReason
	}
	if n.Replaces > 0 {
		s += fmt.Sprintf(" replaces %d", n.Replaces)
	}
	return s + "\n"
}

func describeShard(s *metapb.Shard) string {
	text := fmt.Sprintf("%s version %d:", shard.ID(s.Id), s.Version)
	for _, r := range s.Replicas {
		text += fmt.Sprintf(" %d@%d", r.Id, r.Node)
	}
	text += fmt.Sprintf(", next %d", s.NextReplica)
	if s.Leader > 0 {
		text += fmt.Sprintf(", led by %d", s.Leader)
	}
	if s.Recoveries > 0 {
		text += fmt.Sprintf(", recovered %d times", s.Recoveries)
	}
	if mv := s.Move; mv != nil {
		text += fmt.Sprintf(", moving %d@%d to %d@%d since %d s: %s",
			mv.From.GetId(), mv.From.GetNode(), mv.To.Id, mv.To.Node, mv.StartedAt/1000, mv.Reason)
		if mv.Ready {
			text += ", ready"
		}
	}
	return text + "\n"
}

func describeView(v *metapb.View) string {
	var b strings.Builder
	if c := v.Cluster; c != nil {
		fmt.Fprintf(&b, "cluster %s version %d: %s, %d replicas, features %d, next node %d, down after %d ms, secret of %d, token of %d\n",
			c.Id, c.Version, describeLayout(c.Layout), c.Replicas, c.Features, c.NextNode, c.DownAfter, len(c.Secret), len(c.TokenHash))
	}
	for _, n := range v.Nodes {
		b.WriteString(describe(n))
	}
	for _, s := range v.Shards {
		b.WriteString(describeShard(s))
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// stateNamed is the opposite of StateName.
func stateNamed(tb testing.TB, name string) State {
	for _, s := range States() {
		if StateName(s) == name {
			return s
		}
	}
	tb.Fatalf("no state %q", name)
	return None
}

// script runs one line of a script.
type script struct {
	*meta
	*datadriven.TestData
}

func (s script) text(name string) (v string) {
	s.MaybeScanArgs(s.T, name, &v)
	return strings.ReplaceAll(v, "_", " ")
}

func (s script) number(name string) (v uint64) {
	s.MaybeScanArgs(s.T, name, &v)
	return v
}

func (s script) shard(name string) uint32 {
	var v string
	s.ScanArgs(s.T, name, &v)
	id, err := shard.ParseID(v)
	if err != nil {
		s.T.Fatal(err)
	}
	return uint32(id)
}

// node is a node that a script describes.
func (s script) node() *metapb.Node {
	n := &metapb.Node{
		Id: s.number("node"), Boot: s.number("boot"), Process: s.number("process"), Features: uint32(s.number("features")),
		Name: s.text("name"), Zone: s.text("zone"), Version: s.text("version"), Http: s.text("http"), Replaces: s.number("replaces"),
	}
	for _, arg := range s.CmdArgs {
		if arg.Key != "roles" {
			continue
		}
		for _, v := range arg.Vals {
			role := slices.IndexFunc(shard.Services(), func(known shard.Service) bool { return known.String() == v })
			n.Roles = append(n.Roles, uint32(role+1))
		}
	}
	return n
}

func (s script) run() string {
	var r shard.Result
	show := func() string { return "" }
	node := func() string { return describe(read[metapb.Node](s.T, r)) }
	view := func() string { return describeView(read[metapb.View](s.T, r)) }
	switch s.Cmd {
	case "found":
		f := founding(max(1, int(s.number("keyspaces"))))
		if id := s.text("id"); id != "" {
			f.Cluster.Id = id
		}
		if n := s.number("replicas"); n > 0 {
			f.Cluster.Replicas = uint32(n)
		}
		f.Cluster.TokenHash, f.Cluster.NextNode = token(s.text("token")), s.number("next")
		for id := range s.number("nodes") {
			f.Nodes = append(f.Nodes, &metapb.Node{Id: id + 1, Http: fmt.Sprintf("h%d:7400", id+1), State: Decommissioned, Boot: 9, Name: "nobody"})
		}
		r, show = s.do(f), view
	case "register":
		r, show = s.register(s.node()), node
	case "join":
		r = s.do(&metapb.Join{Node: s.node(), TokenHash: token(s.text("token")), Cluster: s.text("cluster")})
		show = func() string {
			a := read[metapb.JoinAnswer](s.T, r)
			return fmt.Sprintf("number %d\n%s", a.Node, describeView(a.View))
		}
	case "token":
		r = s.do(&metapb.SetToken{Hash: token(s.text("is"))})
	case "down-after":
		r = s.do(&metapb.SetDownAfter{Ms: int64(s.number("ms"))})
	case "state":
		r = s.do(&metapb.SetNodeState{Node: s.number("node"), State: stateNamed(s.T, s.text("to")), Reason: s.text("reason"), Lost: s.HasArg("lost")})
		show = node
	case "plan": // one move a line: shard version from to reason
		p := new(metapb.PlanMoves)
		for line := range strings.Lines(s.Input) {
			m, id := new(metapb.PlannedMove), ""
			if _, err := fmt.Sscan(line, &id, &m.Version, &m.From, &m.To, &m.Reason); err != nil {
				s.T.Fatalf("%s: %v", line, err)
			}
			parsed, err := shard.ParseID(id)
			if err != nil {
				s.T.Fatal(err)
			}
			m.Shard = uint32(parsed)
			p.Moves = append(p.Moves, m)
		}
		r, show = s.do(p), view
	case "ready":
		r = s.do(&metapb.ReadyMove{Shard: s.shard("shard"), Replica: s.number("replica")})
	case "finish":
		r = s.do(&metapb.FinishMove{Shard: s.shard("shard"), Replica: s.number("replica"), Done: !s.HasArg("given-up"), Reason: s.text("reason")})
	case "prefer":
		r = s.do(&metapb.PreferLeaders{Preferences: []*metapb.Preference{{Shard: s.shard("shard"), Node: s.number("node")}}})
	case "raise":
		r = s.do(&metapb.RaiseFeatures{Features: uint32(s.number("to"))})
	case "recover":
		r, show = s.do(&metapb.RecoverShard{Shard: s.shard("shard"), Node: s.number("node"), Replica: s.number("as"), Detail: s.text("detail")}), view
	case "note":
		r = s.do(&metapb.Note{Event: &metapb.Event{Seq: 77, At: 77, Type: s.text("type"), Node: s.number("node"), Detail: s.text("detail")}})
	case "look":
		return describeView(s.look(s.number("newer-than")))
	case "list":
		return describeView(&metapb.View{Nodes: s.nodes()})
	case "events":
		var b strings.Builder
		for _, e := range s.events(s.number("after"), uint32(s.number("limit"))) {
			fmt.Fprintf(&b, "%d %d s %s", e.Seq, e.At/1000, e.Type)
			if e.Node > 0 {
				fmt.Fprintf(&b, " node %d", e.Node)
			}
			if e.Shard > 0 {
				fmt.Fprintf(&b, " %s", shard.ID(e.Shard))
			}
			fmt.Fprintf(&b, " %q\n", e.Detail)
		}
		return b.String()
	case "restart":
		s.Restart()
		return "same state"
	default:
		s.Fatalf(s.T, "unknown command %s", s.Cmd)
	}
	if !r.OK() {
		return r.Code + ": " + r.Detail
	}
	if text := show(); text != "" {
		return text
	}
	return "done"
}

func TestScripts(t *testing.T) {
	shardtest.Scripts(t, "testdata/scripts", func(t testing.TB) shardtest.Desk { return newMeta(t) })
}

// Do implements shardtest.Desk.
func (m *meta) Do(d *datadriven.TestData) string { return script{m, d}.run() }
