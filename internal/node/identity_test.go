package node

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hanse/internal/shard"
	"hanse/internal/store/memstore"
)

// member is the configuration of node 2 of three.
func member() Config {
	c := DefaultConfig()
	c.Dir, c.ID, c.ClusterID, c.Bootstrap, c.PSP = "/data", 2, "shop", true, Instant
	c.Peers = []Peer{{ID: 3, HTTP: "c:1", Peer: "c:2"}, {ID: 1, HTTP: "a:1", Peer: "a:2"}, {ID: 2, HTTP: "b:1", Peer: "b:2"}}
	c.Layout = shard.Layout{shard.Meta: 1, shard.Order: 3, shard.Inventory: 2, shard.Payment: 1, shard.Notification: 1, shard.Keyspace: 1}
	return c
}

// The directory above the nodes' own ones, or another program's, is a mistake, and no place to found a cluster in.
func TestADirectoryOfSomethingElseIsRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string
		join  bool
		want  string // "" is accepted
	}{
		{"empty", nil, false, ""},
		{"a file system of its own", []string{"lost+found"}, false, ""},
		{"a node's", []string{"store", "notes"}, false, ""},
		{"a development cluster's", []string{"node1", "node2", "node3", "psp", "node1.log"}, false, "no node's, and not empty (node1, node1.log, node2, 2 more)"},
		{"a provider's", []string{"ledger.jsonl"}, true, "no node's, and not empty (ledger.jsonl)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := member()
			c.Dir = t.TempDir()
			if test.join {
				c.Bootstrap, c.Join = false, []string{"a:1"}
			}
			for _, name := range test.files {
				if err := os.Mkdir(filepath.Join(c.Dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			err := c.checkDir()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("checkDir = %v, want %q", err, test.want)
			}
		})
	}
}

func TestIdentify_refuses_what_is_not_this_nodes_directory(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // "" is accepted
	}{
		{"the same again", func(*Config) {}, ""},
		{"without bootstrap", func(c *Config) { c.Bootstrap = false }, ""},
		{"other addresses", func(c *Config) { c.HTTPAddr, c.Peers[0].Peer = "x:1", "y:2" }, ""},
		{"peers in another order", func(c *Config) { c.Peers[0], c.Peers[1] = c.Peers[1], c.Peers[0] }, ""},
		{"another node", func(c *Config) { c.ID = 1 }, "belongs to node 2, not 1"},
		{"another cluster", func(c *Config) { c.ClusterID = "shed" }, `belongs to cluster "shop", not "shed"`},
		{"a shard more", func(c *Config) { c.Layout[shard.Order]++ }, "shards meta=1,order=3,inventory=2,payment=1,notification=1,keyspace=1, configured are meta=1,order=4,inventory=2,"},
		{"a node more", func(c *Config) { c.Peers = append(c.Peers, Peer{ID: 4}) }, "bootstrapped for nodes [1 2 3]"},
		{"who it is stands in the directory", func(c *Config) {
			c.ID, c.ClusterID, c.Bootstrap, c.Peers, c.Layout, c.Replicas = 0, "", false, nil, shard.DefaultLayout(), 5
		}, ""},
		{"another node, without bootstrap", func(c *Config) { c.ID, c.Bootstrap = 1, false }, "belongs to node 2, not 1"},
		{"fewer replicas", func(c *Config) { c.Replicas = 1 }, "with 3 replicas, configured are [1 2 3] with 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := memstore.NewDisk()
			if _, err := identify(disk.Open(), member(), nil); err != nil {
				t.Fatalf("bootstrap: %v", err)
			}
			disk.Crash(0) // what bootstrap has written is synced
			cfg := member()
			c.change(&cfg)
			_, err := identify(disk.Open(), cfg, nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("identify = %v, want %q", err, c.want)
			}
		})
	}
}

// What a founder of the cluster says is not used later, and that is said.
func TestUnheeded(t *testing.T) {
	have := member().identity()
	c := member()
	c.Layout[shard.Order]++
	c.Replicas = 5
	if got := c.unheeded(have); len(got) != 0 {
		t.Errorf("defaults are told of: %q", got)
	}
	c.LayoutStated, c.ReplicasStated = true, true
	if got := c.unheeded(have); len(got) != 2 || !strings.Contains(got[0], "order=3,") || got[1] != "--replicas 5: the cluster has 3" {
		t.Errorf("unheeded = %q, want --shards and --replicas", got)
	}
	if c = member(); len(c.unheeded(have)) != 0 {
		t.Errorf("what is so is told of: %q", c.unheeded(have))
	}
}

func TestIdentify_refuses_an_empty_directory_without_bootstrap(t *testing.T) {
	e := memstore.NewDisk().Open()
	cfg := member()
	cfg.Bootstrap = false
	if _, err := identify(e, cfg, nil); err == nil || !strings.Contains(err.Error(), "--bootstrap") {
		t.Errorf("identify = %v, want a hint at --bootstrap", err)
	}
	it, err := e.Iter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	if it.Next() {
		t.Errorf("the refusal has written %q", it.Key())
	}
}

func TestIdentify_refuses_newer_and_unreadable_directories(t *testing.T) {
	newer := member().identity()
	newer.Format++
	data, err := json.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	for want, stored := range map[string][]byte{
		"use a newer hanse":   data,
		"unreadable identity": []byte("{"),
	} {
		e := memstore.NewDisk().Open()
		set(t, e, identityKey, stored)
		if _, err := identify(e, member(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("identify = %v, want %q", err, want)
		}
	}
}

// A disk that fails is no empty disk: nothing is bootstrapped over it.
func TestIdentify_reports_a_failing_disk(t *testing.T) {
	broken := errors.New("unreadable sector")
	disk := memstore.NewDisk()
	e := disk.Open()
	disk.FailNextRead(broken)
	if _, err := identify(e, member(), nil); !errors.Is(err, broken) {
		t.Errorf("identify = %v, want %v", err, broken)
	}
}

func TestCountBoot_counts_every_start(t *testing.T) {
	disk := memstore.NewDisk()
	for want := uint64(1); want <= 200; want++ { // beyond one byte
		for range 2 { // one that is not counted was not there
			got, err := nextBoot(disk.Open())
			if err != nil || got != want {
				t.Fatalf("nextBoot = %d, %v, want %d", got, err, want)
			}
			disk.Crash(0)
		}
		if err := countBoot(disk.Open(), want); err != nil {
			t.Fatal(err)
		}
		disk.Crash(0) // the number is on disk before it is used
	}
	for _, garbage := range [][]byte{{}, {0}, {0x80}, {1, 1}} {
		e := memstore.NewDisk().Open()
		set(t, e, bootKey, garbage)
		if got, err := nextBoot(e); err == nil {
			t.Errorf("nextBoot of %x = %d, want an error", garbage, got)
		}
	}
}

func set(t *testing.T, e *memstore.Store, key, value []byte) {
	t.Helper()
	b := e.NewBatch()
	defer b.Close()
	b.Set(key, value)
	if err := e.Apply(b, true); err != nil {
		t.Fatal(err)
	}
}

func TestPlacement(t *testing.T) {
	layout := shard.Layout{shard.Meta: 1, shard.Order: 5, shard.Inventory: 5, shard.Payment: 5, shard.Notification: 1, shard.Keyspace: 5}
	for _, c := range []struct{ nodes, replicas, want int }{{1, 3, 1}, {2, 3, 2}, {3, 3, 3}, {5, 3, 3}, {5, 1, 1}} {
		id := identity{Replicas: c.replicas}
		for n := range c.nodes {
			id.Nodes = append(id.Nodes, uint64(10*n+10))
		}
		hosted := make(map[uint64]int) // shards of one service by node
		for _, s := range layout.All() {
			replicas := placement(s, id)
			if len(replicas) != c.want {
				t.Fatalf("%d nodes, %d replicas: shard %s has %d, want %d", c.nodes, c.replicas, s, len(replicas), c.want)
			}
			seen := make(map[uint64]bool)
			for i, r := range replicas {
				node := uint64(r.Node)
				if r.ID != uint64(i+1) || seen[node] || !slices.Contains(id.Nodes, node) {
					t.Errorf("shard %s has replica %d on node %d, want IDs from 1 on different nodes of %v", s, r.ID, node, id.Nodes)
				}
				seen[node] = true
				if s.Service() == shard.Order {
					hosted[node]++
				}
			}
		}
		for _, node := range id.Nodes { // five shards on five nodes: each hosts as many as it has copies
			if want := 5 * c.want / c.nodes; hosted[node] != want {
				t.Errorf("%d nodes, %d replicas: node %d hosts %d order shards, want %d", c.nodes, c.replicas, node, hosted[node], want)
			}
		}
	}
}
