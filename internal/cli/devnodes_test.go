package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"hanse/client"
	"hanse/internal/dev"
)

// A node that the cluster has decommissioned would be refused, and one whose directory is gone too: it has forgotten what it promised.
func TestNodesThatAreGoneAreNotStarted(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"node1", "node3", "node4"} {
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, seenFile), []byte(`{"members":[1,2,3,4],"decommissioned":[4]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := readSeen(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &devRun{opts: devOptions{nodes: 3, port: 21400, psp: "instant"}, dir: dir, seen: seen, added: []addedNode{{Node: 4}, {Node: 5}}}
	var cfg dev.Config
	_, addrs := d.plan(&cfg, "hanse")
	var names []string
	for _, p := range cfg.Processes {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ", "); got != "node 1, node 3, node 5" {
		t.Errorf("it starts %s", got)
	}
	if all := strings.Join(addrs, " "); strings.Contains(all, "21410") || strings.Contains(all, "21430") {
		t.Errorf("it needs %s, and ports of nodes that are not started", all)
	}
	if founder := strings.Join(cfg.Processes[0].Command, " "); !strings.Contains(founder, ",2=127.0.0.1:21410/127.0.0.1:21412,") {
		t.Errorf("a founder runs as %s, want the list that it was founded with", founder)
	}
	if _, advice := d.leaveOut(2); !strings.Contains(advice, filepath.Join(dir, "node2")+" is gone") || !strings.Contains(advice, "hanse node replace 2") {
		t.Errorf("of node 2 it says %q", advice)
	}
	if _, advice := d.leaveOut(4); advice != "node 4 has been decommissioned, and is not started" {
		t.Errorf("of node 4 it says %q", advice)
	}
	for n, want := range map[int]string{1: "http://127.0.0.1:21400", 2: "has lost its directory", 3: "is not ready, or has ended", 4: "has been decommissioned"} {
		d.alive = []string{"127.0.0.1:21400"}
		if got := d.whereabouts(n); got != want {
			t.Errorf("node %d %s, want %s", n, got, want)
		}
	}
}

func TestWhatIsSeenOfTheNodesIsKept(t *testing.T) {
	d := &devRun{opts: devOptions{port: 7400}}
	before := seenNodes{Members: []int{1, 6}, Decommissioned: []int{5}}
	got := before.look([]client.Node{
		{REST: "127.0.0.1:7400", State: client.Active},
		{REST: "127.0.0.1:7410", State: client.Decommissioned}, // and another has taken its address
		{REST: "127.0.0.1:7410", State: client.Draining},
		{REST: "127.0.0.1:7420", State: client.Decommissioned},
		{REST: "127.0.0.1:7430", State: client.Joining},
		{REST: "10.0.0.1:7440", State: client.Active},
		{REST: "127.0.0.1:7405", State: client.Active},
		{REST: "127.0.0.1:7490", State: client.Active},
	}, d.number)
	if want := (seenNodes{Members: []int{1, 2, 6}, Decommissioned: []int{3, 5}}); !reflect.DeepEqual(got, want) {
		t.Errorf("seen %+v, want %+v", got, want)
	}
}

// The number of shards is a cluster's for good, and need not be stated again.
func TestShardsAreKept(t *testing.T) {
	dir, former, never := t.TempDir(), t.TempDir(), t.TempDir()
	makeNode := func(dir string) {
		if err := os.Mkdir(filepath.Join(dir, "node1"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	makeNode(former)
	if n, err := keepShards(dir, 3); n != 3 || err != nil {
		t.Fatalf("keepShards of a new cluster = %d, %v, want 3", n, err)
	}
	makeNode(dir)
	for _, test := range []struct {
		dir          string
		stated, want int
		refused      string
	}{
		{dir, 0, 3, ""}, {never, 5, 5, ""}, {never, 3, 3, ""}, // a first start that failed does not bind
		{dir, 3, 3, ""}, {dir, 2, 0, "has 3, for good"}, {t.TempDir(), 0, 1, ""},
		{former, 0, 1, ""}, {former, 2, 2, ""}, // it was not noted there: the nodes refuse another number
	} {
		got, err := keepShards(test.dir, test.stated)
		if got != test.want || (err != nil) != (test.refused != "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("keepShards(%s, %d) = %d, %v; want %d, %q", filepath.Base(test.dir), test.stated, got, err, test.want, test.refused)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, shardsFile), []byte("many"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := keepShards(dir, 0); err == nil {
		t.Errorf("a file that says %q is taken for %d shards", "many", n)
	}
}
