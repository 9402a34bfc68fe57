package node

import (
	"strings"
	"testing"

	"hanse/internal/shard"
)

func TestValidate_accepts(t *testing.T) {
	alone := DefaultConfig()
	alone.Dir = "data"
	provider := member()
	provider.PSP = "http://127.0.0.1:7490"
	for name, c := range map[string]Config{"alone": alone, "one of three": member(), "a provider by URL": provider} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidate_reports_every_problem(t *testing.T) {
	c := DefaultConfig() // without a directory
	c.ID, c.ClusterID = 0, ""
	c.HTTPAddr, c.PeerAddr = "nowhere", "7402"
	c.Layout = shard.Layout{shard.Meta: 1}
	c.Replicas = 8
	c.Peers = []Peer{{ID: 1}, {ID: 1}, {ID: 0}}
	c.PSP = "my bank"
	c.MaxInFlight = 0
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		"no data directory", "node ID 0", "no cluster ID", `HTTP address "nowhere"`, `peer address "7402"`, "layout: order has 0 shards",
		"8 replicas", "peer ID 1", "peer ID 0", `payment provider "my bank"`, "at most 0 requests",
	}
	for i, w := range want {
		if i >= len(got) || !strings.Contains(got[i], w) {
			t.Fatalf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d problems, want %d:\n%s", len(got), len(want), err)
	}
}

func TestValidate_refuses_a_node_outside_its_own_list(t *testing.T) {
	c := member()
	c.ID = 4
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "node 4 is not in its own list") {
		t.Errorf("Validate = %v", err)
	}
}
