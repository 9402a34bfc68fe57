package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"hanse/internal/dev"
	"hanse/internal/freeport"
)

// fleet is some nodes in this process, on the disk and on loopback.
type fleet struct {
	tb     testing.TB
	peers  []Peer
	gossip []string
	dirs   []string
	stops  []func()
	psp    string
}

func startCluster(tb testing.TB, n int) *fleet {
	c := &fleet{tb: tb, psp: Instant, stops: make([]func(), n)}
	for i := range n {
		first, err := freeport.Block()
		if err != nil {
			tb.Fatal(err)
		}
		ports := dev.NodePorts(first, 1)
		c.peers = append(c.peers, Peer{ID: uint64(i + 1), HTTP: dev.Loopback(ports.HTTP), Peer: dev.Loopback(ports.Peer)})
		c.dirs, c.gossip = append(c.dirs, tb.TempDir()), append(c.gossip, dev.Loopback(ports.Gossip))
	}
	for i := range n {
		c.start(i)
	}
	tb.Cleanup(func() {
		for i := range n {
			c.stop(i)
		}
	})
	for i := range n {
		c.ready(i)
	}
	return c
}

func (c *fleet) open(i int) *Node {
	cfg := DefaultConfig()
	cfg.Dir, cfg.ID, cfg.ClusterID, cfg.Bootstrap = c.dirs[i], uint64(i+1), "test", true
	cfg.HTTPAddr, cfg.PeerAddr, cfg.Peers, cfg.PSP = c.peers[i].HTTP, c.peers[i].Peer, c.peers, c.psp
	cfg.GossipAddr = c.gossip[i]
	n, err := Open(c.tb.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		c.tb.Fatal(err)
	}
	return n
}

func (c *fleet) start(i int) {
	n := c.open(i)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	c.stops[i] = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.tb.Error(err)
		}
	})
}

func (c *fleet) stop(i int) { c.stops[i]() }

func (c *fleet) ready(i int) {
	deadline := time.Now().Add(20 * time.Second)
	last := ""
	for time.Now().Before(deadline) {
		resp, err := http.Get("http://" + c.peers[i].HTTP + "/readyz")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			last = string(body)
		}
		<-time.After(20 * time.Millisecond)
	}
	c.tb.Fatalf("node %d is not ready: %s", i+1, last)
}

// do makes a request and returns the status and the answer.
func (c *fleet) do(i int, method, path, key string, body any) (int, map[string]any) {
	c.tb.Helper()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			c.tb.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, "http://"+c.peers[i].HTTP+path, bytes.NewReader(data))
	if err != nil {
		c.tb.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	answer := map[string]any{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			c.tb.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, raw)
		}
	}
	return resp.StatusCode, answer
}

// metrics returns what a node tells Prometheus.
func (c *fleet) metrics(i int) string {
	c.tb.Helper()
	resp, err := http.Get("http://" + c.peers[i].HTTP + "/metrics")
	if err != nil {
		c.tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return string(text)
}

type m = map[string]any

func TestNode_refuses_one_port_for_two_things(t *testing.T) {
	first, err := freeport.Block()
	if err != nil {
		t.Fatal(err)
	}
	ports := dev.NodePorts(first, 1)
	cfg := DefaultConfig()
	cfg.Dir, cfg.PSP, cfg.HTTPAddr, cfg.PeerAddr = t.TempDir(), Instant, dev.Loopback(ports.HTTP), dev.Loopback(ports.Peer)
	cfg.GossipAddr = cfg.HTTPAddr
	if n, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Errorf("HTTP and gossip at one address are accepted (%v)", n.release())
	} else if !strings.Contains(err.Error(), "listen on "+cfg.GossipAddr) {
		t.Error(err)
	}
}

// A caller that meets a node which is just starting asks another one at once, and does not wait at a port that nobody serves yet.
func TestNode_opens_its_door_when_it_serves(t *testing.T) {
	c := startCluster(t, 1)
	c.stop(0)
	n := c.open(0)
	if conn, err := net.Dial("tcp", c.peers[0].HTTP); err == nil {
		conn.Close()
		t.Error("a node that is opened, and does not run yet, takes connections")
	}
	if err := n.release(); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	c.ready(0)
}

func TestCluster_takes_an_order_from_any_node(t *testing.T) {
	c := startCluster(t, 3)
	if status, a := c.do(0, "POST", "/v1/stock/MUG/receipts", "r1", m{"quantity": 100}); status != 201 {
		t.Fatalf("receive: %d %v", status, a)
	}
	for i := range 3 {
		body := m{"customer_id": "ann", "currency": "EUR", "lines": []m{{"sku": "MUG", "quantity": 2, "unit_price": 1250}}, "payment": m{"method": "card"}}
		status, a := c.do(i, "POST", "/v1/orders", fmt.Sprint("o", i), body)
		if status != 201 || a["state"] != "confirmed" || a["total"] != 2500.0 {
			t.Fatalf("place at node %d: %d %v", i+1, status, a)
		}
		again, b := c.do((i+1)%3, "POST", "/v1/orders", fmt.Sprint("o", i), body)
		if again != 201 || b["id"] != a["id"] {
			t.Errorf("the same again: %d %v, want order %v", again, b["id"], a["id"])
		}
		id := a["id"].(string)
		if status, a = c.do((i+1)%3, "POST", "/v1/orders/"+id+"/fulfillments", fmt.Sprint("f", i), m{}); status != 201 || a["state"] != "fulfilled" {
			t.Fatalf("fulfill: %d %v", status, a)
		}
		if status, a = c.do((i+2)%3, "POST", "/v1/orders/"+id+"/returns", fmt.Sprint("t", i), m{"items": []m{{"line": 1, "quantity": 1}}}); status != 201 {
			t.Fatalf("return: %d %v", status, a)
		}
		if status, a = c.do(i, "GET", "/v1/orders/"+id+"/events", "", nil); status != 200 || len(a["events"].([]any)) < 6 {
			t.Fatalf("events: %d %v", status, a)
		}
		if status, a = c.do(i, "GET", "/v1/orders/"+id+"?version=1", "", nil); status != 200 || a["state"] != "placing" {
			t.Fatalf("version 1: %d %v", status, a)
		}
		if status, a = c.do(i, "GET", "/v1/orders/"+id+"/explain", "", nil); status != 200 {
			t.Fatalf("explain: %d %v", status, a)
		}
	}
	// Goods come back to the stock after the return was answered.
	deadline := time.Now().Add(20 * time.Second)
	status, a := c.do(1, "GET", "/v1/stock/MUG", "", nil)
	for ; a["on_hand"] != 97.0 || a["available"] != 97.0; status, a = c.do(1, "GET", "/v1/stock/MUG", "", nil) {
		if status != 200 || time.Now().After(deadline) {
			t.Fatalf("stock: %d %v", status, a)
		}
	}
	if status, a = c.do(1, "GET", "/v1/orders?customer_id=ann&limit=2", "", nil); status != 200 || len(a["orders"].([]any)) != 2 || a["has_more"] != true {
		t.Errorf("list: %d %v", status, a)
	}
	if status, a = c.do(1, "PUT", "/v1/keyspaces/default/keys/a/b", "", m{"x": 1}); status != 200 || a["version"] != 1.0 {
		t.Errorf("put: %d %v", status, a)
	}
	metrics := c.metrics(0) + c.metrics(1) + c.metrics(2) // whichever leads
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "# TYPE ") && !strings.HasPrefix(line, "# TYPE hanse_") && !strings.HasPrefix(line, "# TYPE go_") && !strings.HasPrefix(line, "# TYPE process_") {
			t.Errorf("a metric does not say whose it is: %s", line)
		}
	}
	for _, want := range []string{"\nhanse_replica_leading{", "\nhanse_rest_requests_total{", "\nhanse_reactor_outbox_messages{", "\nhanse_saga_stuck_orders{"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}
