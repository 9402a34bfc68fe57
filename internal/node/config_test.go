package node

import (
	"log/slog"
	"strings"
	"testing"

	"hanse/internal/shard"
)

func TestValidate_accepts(t *testing.T) {
	alone := DefaultConfig()
	alone.Dir, alone.PSP = "data", Instant
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
	c.ID, c.ClusterID, c.Bootstrap = 0, "", true
	c.HTTPAddr, c.PeerAddr = "nowhere", "7402"
	c.Layout = shard.Layout{shard.Meta: 1}
	c.Replicas = 8
	c.Peers = []Peer{{ID: 1}, {ID: 1}, {ID: 0}}
	c.PSP = "my bank"
	c.MaxInFlight, c.SnapshotRate = 0, 10241
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		"no data directory", "node ID 0", "no cluster ID", `HTTP address "nowhere"`, `peer address "7402"`, "layout: order has 0 shards",
		"8 replicas", "peer ID 1", "peer ID 0", `payment provider "my bank"`, "snapshots at 10241 MiB/s", "at most 0 requests",
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

// What others are told of a provider is the same for the same one, and holds no secret.
func TestAProviderHasAName(t *testing.T) {
	const long = "https://payments.example/"
	for psp, want := range map[string]string{
		"": Instant, Instant: Instant, "http://127.0.0.1:7490": "http://127.0.0.1:7490", "https://Payments.Example/v1/": "https://payments.example/v1",
		"https://till:secret@payments.example/v1?token=secret#secret": "https://payments.example/v1", "https://payments.example/a%2Fb": "https://payments.example/a%2Fb",
		long + strings.Repeat("x", maxProviderBytes-len(long)): long + strings.Repeat("x", maxProviderBytes-len(long)),
	} {
		if got := providerName(psp); got != want {
			t.Errorf("the name of provider %q is %q, want %q", psp, got, want)
		}
		c := member()
		if c.PSP = psp; c.Validate() != nil {
			t.Errorf("provider %q: %v", psp, c.Validate())
		}
	}
	c := member()
	c.PSP = "https://till:secret@payments.example/" + strings.Repeat("x", maxProviderBytes)
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "a URL of 292 bytes, want at most 255") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a provider of %d bytes: %v", len(c.PSP), err)
	}
}

// A node that charges nobody says so, for orders are confirmed all the same.
func TestAProviderThatChargesNobodyIsAnnounced(t *testing.T) {
	const url, other = "http://127.0.0.1:7490", "http://127.0.0.1:7491"
	for _, test := range []struct {
		said, admitted string // by whoever starts the node, and by the node that admitted it
		want           string
		warns          bool
	}{
		{"", "", "", true}, {Instant, "", Instant, true}, {"", Instant, Instant, true}, {Instant, url, Instant, true},
		{url, "", url, false}, {"", url, url, false}, {other, url, other, false},
	} {
		var out strings.Builder
		n := &Node{cfg: member(), identity: identity{PSP: test.admitted}, log: slog.New(slog.NewTextHandler(&out, nil))}
		n.cfg.PSP = test.said
		if got := n.psp(); got != test.want {
			t.Errorf("said %q and %q: the provider is %q, want %q", test.said, test.admitted, got, test.want)
		}
		n.provider()
		warns := strings.Contains(out.String(), "level=WARN") && strings.Contains(out.String(), "charge")
		if warns != test.warns || !warns && out.Len() > 0 {
			t.Errorf("said %q and %q: the log says %q, want a warning: %v", test.said, test.admitted, out.String(), test.warns)
		}
	}
}

func TestValidate_refuses_a_node_outside_its_own_list(t *testing.T) {
	c := member()
	c.ID = 4
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "node 4 is not in its own list") {
		t.Errorf("Validate = %v", err)
	}
}

func joining() Config {
	c := DefaultConfig()
	c.Dir, c.ID, c.Join, c.JoinToken, c.PSP = "data", 0, []string{"shop1.example:7400", "10.0.0.2:7400"}, "secret", Instant
	return c
}

func TestValidate_of_a_node_that_joins(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // "" is accepted
	}{
		{"as it should be", func(*Config) {}, ""},
		{"in another's place", func(c *Config) { c.Replace = 3 }, ""},
		{"whatever the cluster", func(c *Config) { c.ClusterID = "" }, ""},
		{"with a description", func(c *Config) {
			c.Name, c.Zone, c.Roles = "shop-4.b", "b", []string{"order", "payment"}
		}, ""},
		{"behind a name", func(c *Config) {
			c.HTTPAddr, c.PeerAddr, c.GossipAddr = "0.0.0.0:7400", ":7402", "[::]:7403"
			c.AdvertiseHTTP, c.AdvertisePeer, c.AdvertiseGossip = "shop4:7400", "shop4:7402", "shop4:7403"
		}, ""},
		{"without a token", func(c *Config) { c.JoinToken = "" }, "join without a token"},
		{"that founds as well", func(c *Config) { c.Bootstrap = true }, "join and bootstrap"},
		{"with peers", func(c *Config) { c.Peers = []Peer{{ID: 1}} }, "join and a list of peers"},
		{"with a number", func(c *Config) { c.ID = 4 }, "node ID 4: the cluster gives"},
		{"nowhere", func(c *Config) { c.Join = []string{":7400"} }, `join address ":7400"`},
		{"everywhere", func(c *Config) { c.HTTPAddr = "0.0.0.0:7400" }, "address 0.0.0.0:7400 is every address"},
		{"called badly", func(c *Config) { c.Name = "a b" }, `name "a b"`},
		{"in no zone", func(c *Config) { c.Zone = strings.Repeat("z", 64) }, "zone"},
		{"for nothing", func(c *Config) { c.Roles = []string{"cooking"} }, `role "cooking": there is no such service`},
		{"twice for orders", func(c *Config) { c.Roles = []string{"order", "order"} }, `role "order" is given twice`},
		{"gossiping nowhere", func(c *Config) { c.GossipAddr = "7403" }, `gossip address "7403"`},
		{"told wrongly", func(c *Config) { c.AdvertisePeer = "shop4" }, `advertised peer address "shop4"`},
	} {
		cfg := joining()
		c.change(&cfg)
		err := cfg.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Validate = %v, want %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the token is shown: %v", c.name, err)
		}
	}
}

func TestValidate_refuses_to_replace_without_joining(t *testing.T) {
	c := member()
	c.Replace = 3
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "replace node 3: only a node that joins") {
		t.Errorf("Validate = %v", err)
	}
}

func TestAdvertised(t *testing.T) {
	c := member()
	c.HTTPAddr, c.PeerAddr, c.GossipAddr = "0.0.0.0:7400", "0.0.0.0:7402", "0.0.0.0:7403"
	c.AdvertiseGossip = "b:3"
	if http, peer, gossip := c.Advertised(); http != "b:1" || peer != "b:2" || gossip != "b:3" {
		t.Errorf("Advertised = %s %s %s, want what the list of peers and AdvertiseGossip say", http, peer, gossip)
	}
	c.Peers, c.AdvertiseHTTP = nil, "c:1"
	if http, peer, _ := c.Advertised(); http != "c:1" || peer != c.PeerAddr {
		t.Errorf("Advertised = %s %s, want c:1 and where it listens", http, peer)
	}
}
