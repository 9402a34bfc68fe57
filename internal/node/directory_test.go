package node

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"hanse/api/metapb"
	"hanse/internal/shard"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

func TestAdmit(t *testing.T) {
	view := &metapb.View{Nodes: []*metapb.Node{
		{Id: 1}, {Id: 2, Boot: 5, Process: 50, Peers: "two:1"}, {Id: 3, State: metapb.NodeState_NODE_DECOMMISSIONED, StateReason: "replaced by node 4"},
	}}
	d, err := openDirectory(1, memstore.NewDisk().Open(), view, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		node          transport.NodeID
		boot, process uint64
		lives         uint64 // process of that node which is there
		want          string // part of the refusal, empty for none
	}{
		{"the known start", 2, 5, 50, 50, ""},
		{"the next start", 2, 6, 60, 0, ""},
		{"the next start, which this node has connected to already", 2, 6, 60, 60, ""},
		{"a second process on a copy", 2, 6, 60, 50, "node 2 is running at two:1"},
		{"an older start", 2, 4, 40, 0, "its directory is an old copy"},
		{"the same start of another process", 2, 5, 51, 0, "a copy, or used twice"},
		{"of an older version", 2, 0, 50, 0, ""},
		{"unknown yet", 9, 1, 1, 0, ""},
		{"removed", 3, 7, 70, 0, "removed from the cluster (replaced by node 4)"},
	} {
		d.lives = func(transport.NodeID) uint64 { return c.lives }
		err := d.admit(c.node, c.boot, c.process)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: admit() = %v, want %q", c.name, err, c.want)
		}
	}
}

// Who the others are is said once: a founder finds them again without it, and elsewhere when it is said anew.
func TestAddressesOfFoundersAreKept(t *testing.T) {
	e := memstore.NewDisk().Open()
	cfg := DefaultConfig()
	cfg.Bootstrap, cfg.Peers = true, []Peer{{1, "one:0", "one:2"}, {2, "two:0", "two:2"}}
	id, err := identify(e, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peers []Peer
		want  string
	}{
		{cfg.Peers, "two:2"},
		{nil, "two:2"},
		{[]Peer{{1, "one:0", "one:2"}, {2, "moved:0", "moved:2"}}, "moved:2"},
	} {
		again := cfg
		again.Peers = c.peers
		d, err := openDirectory(1, e, again.firstView(id), time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.now().addresses[2]; got != c.want || len(d.now().peers(1)) != 1 {
			t.Errorf("with the peers %v node 2 is at %q, want %q", c.peers, got, c.want)
		}
	}
}

func TestServes(t *testing.T) {
	here, gone, coming := shard.NewID(shard.Order, 0), shard.NewID(shard.Order, 1), shard.NewID(shard.Order, 2)
	view := &metapb.View{Cluster: &metapb.Cluster{Version: 1}, Shards: []*metapb.Shard{
		{Id: uint32(here), Replicas: []*metapb.Replica{{Id: 1, Node: 1}, {Id: 2, Node: 2}}},
		{Id: uint32(gone), Replicas: []*metapb.Replica{{Id: 4, Node: 2}}},
		{Id: uint32(coming), Replicas: []*metapb.Replica{{Id: 1, Node: 2}}, Move: &metapb.Move{To: &metapb.Replica{Id: 2, Node: 1}}},
	}}
	d, err := openDirectory(1, memstore.NewDisk().Open(), view, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, id shard.ID, want bool) {
		t.Helper()
		if got := d.serves(id); got != want {
			t.Errorf("%s: serves(%s) = %v, want %v", when, id, got, want)
		}
	}
	check("before the plan has been read", here, false)
	check("before the plan has been read", shard.NewID(shard.Meta, 0), true)
	d.take(view)
	check("planned", here, true)
	check("on its way", coming, true)
	check("recovered elsewhere without this node", gone, false)
}
