// Package smoke starts the real program as a user does: a cluster of processes, orders, a killed leader, an audit.
package smoke

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hanse/client"
	"hanse/internal/cli"
	"hanse/internal/freeport"
)

var program string

// linked is the program that these tests start, as a part of the test: without it, go test takes a result of another program for this one's.
var linked = cli.Run

func TestMain(m *testing.M) {
	if linked == nil {
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "hanse-smoke-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "hanse")
	build := exec.Command("go", "build", "-o", program, "hanse/cmd/hanse")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// cluster is a running `hanse dev`.
type cluster struct {
	t    *testing.T
	port int
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan error
	c    *client.Client
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freeBase finds a first port above which all that a cluster needs is free.
func freeBase(t *testing.T) int {
	base, err := freeport.Blocks(10)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func start(t *testing.T, dir string, port int, flags ...string) *cluster {
	c := &cluster{t: t, port: port, out: new(lockedBuffer), done: make(chan error, 1)}
	c.cmd = exec.Command(program, append([]string{"dev", "--dir", dir, "--http-port", strconv.Itoa(port)}, flags...)...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	began := time.Now()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- c.cmd.Wait() }()
	t.Cleanup(c.stop)
	c.until("the cluster is ready", func() bool { return strings.Contains(c.out.String(), "Hanse is ready") })
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
	var addrs []string
	for i := range 3 {
		addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", port+10*i))
	}
	var err error
	if c.c, err = client.New(client.Config{Addrs: addrs}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		select {
		case err := <-c.done:
			c.t.Fatalf("hanse dev ended (%v) before %s:\n%s", err, what, c.out)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not within a minute: %s\n%s", what, c.out)
		}
	}
}

// stop interrupts the cluster as Ctrl-C does, and looks that nothing is left.
func (c *cluster) stop() {
	if c.cmd == nil {
		return
	}
	cmd := c.cmd
	c.cmd = nil
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return
	}
	select {
	case err := <-c.done:
		if err != nil {
			c.t.Errorf("hanse dev: %v\n%s", err, c.out)
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		c.t.Errorf("hanse dev does not end:\n%s", c.out)
	}
	for _, offset := range []int{0, 2, 10, 20, 90} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.port+offset))
		if err != nil {
			c.t.Errorf("after the end: %v", err)
			continue
		}
		l.Close()
	}
}

// hanse runs the program and returns its standard output.
func (c *cluster) hanse(args ...string) (string, int) {
	cmd := exec.Command(program, append(args, "--addr", fmt.Sprintf("127.0.0.1:%d", c.port))...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if err != nil {
		c.t.Logf("hanse %s: %v: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (c *cluster) dev(act string, node uint64) {
	c.t.Helper()
	if out, code := c.hanse("dev", act, fmt.Sprint(node), "--http-port", strconv.Itoa(c.port)); code != 0 {
		c.t.Fatalf("dev %s %d: %s", act, node, out)
	}
}

// restart starts a node that was killed, and waits until all are healthy.
func (c *cluster) restart(node uint64) {
	c.t.Helper()
	c.dev("start", node)
	c.until(fmt.Sprintf("node %d is healthy", node), func() bool {
		nodes, err := c.c.Nodes(c.t.Context())
		if err != nil {
			return false
		}
		for _, n := range nodes {
			if !n.Healthy {
				return false
			}
		}
		return true
	})
}

// audit fails the test when the books do not agree.
func (c *cluster) audit() {
	c.t.Helper()
	out, code := c.hanse("audit", "--json")
	var report struct {
		Orders      int              `json:"orders"`
		Differences []map[string]any `json:"differences"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || len(report.Differences) > 0 {
		c.t.Errorf("audit: exit %d, %v: %s", code, err, out)
	}
	c.t.Logf("audited %d orders", report.Orders)
}

func order(customer string, quantity int64) *client.PlaceOrder {
	return &client.PlaceOrder{
		CustomerID: customer, Currency: "EUR", Payment: &client.Method{Method: "card"},
		Lines: []client.NewLine{{SKU: "TEA-GREEN", Quantity: quantity, UnitPrice: 799}, {SKU: "MUG-RED", Quantity: 1, UnitPrice: 1250}},
	}
}

func TestNothingIsLostWhenLeadersAreKilled(t *testing.T) {
	dir, port := t.TempDir(), freeBase(t)
	c := start(t, dir, port)
	ctx := t.Context()
	for _, sku := range []string{"TEA-GREEN", "MUG-RED"} {
		if _, err := c.c.Receive(ctx, "smoke-"+sku, sku, client.StockChange{Quantity: 100_000}); err != nil {
			t.Fatal(err)
		}
	}

	// Customers order while one node after the other is killed and started again.
	ordering, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var placed []string
	var slowest atomic.Int64
	for customer := range 4 {
		wg.Go(func() {
			for i := 0; ordering.Err() == nil; i++ {
				began := time.Now()
				o, err := c.c.PlaceOrder(ctx, fmt.Sprintf("smoke-%d-%d", customer, i), order(fmt.Sprintf("c%d", customer), int64(i%3+1)))
				if err != nil {
					t.Errorf("an order was lost: %v", err)
					return
				}
				for took := int64(time.Since(began)); ; {
					old := slowest.Load()
					if took <= old || slowest.CompareAndSwap(old, took) {
						break
					}
				}
				if o.State != "confirmed" {
					t.Errorf("order %s is %s", o.ID, o.State)
				}
				mu.Lock()
				placed = append(placed, o.ID)
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(placed)
	}
	for _, victim := range []uint64{1, 2, 3} {
		before := count()
		c.until("some orders", func() bool { return count() > before+30 })
		c.dev("kill", victim)
		before = count()
		c.until(fmt.Sprintf("orders without node %d", victim), func() bool { return count() > before+30 })
		c.restart(victim)
	}
	stop()
	wg.Wait()
	t.Logf("%d orders, the slowest took %v", count(), time.Duration(slowest.Load()).Round(time.Millisecond))
	c.audit()

	// The same key gives the same order, whatever has died since.
	again, err := c.c.PlaceOrder(ctx, "smoke-0-0", order("c0", 1))
	if err != nil || !again.Replayed {
		t.Errorf("the first order again: %+v, %v", again, err)
	}
	// Everything is there after a restart of all.
	c.stop()
	c = start(t, dir, port)
	for _, id := range placed[:20] {
		if o, err := c.c.Order(ctx, id, 0); err != nil || o.State != "confirmed" {
			t.Errorf("order %s after the restart: %v %v", id, o, err)
		}
	}
	c.audit()
}

// What a node was placing when it died is held for a while, and comes back: with exactly the stock that all need, nobody is refused. There are several
// shards, for then the stock is mostly kept elsewhere than the orders.
func TestNobodyIsRefusedForWhatADeadNodeWasPlacing(t *testing.T) {
	c := start(t, t.TempDir(), freeBase(t), "--shards", "3")
	ctx := t.Context()
	const customers, each, adjusted = 40, 30, 30
	for _, victim := range []uint64{1, 2, 3} {
		sku := fmt.Sprintf("EXACT-%d", victim)
		if _, err := c.c.Receive(ctx, "receive-"+sku, sku, client.StockChange{Quantity: customers*each + adjusted}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var placed atomic.Int64
		for customer := range customers {
			wg.Go(func() {
				for i := range each {
					o, err := c.c.PlaceOrder(ctx, fmt.Sprintf("%s-%d-%d", sku, customer, i), &client.PlaceOrder{
						CustomerID: fmt.Sprintf("e%d", customer), Currency: "EUR", Payment: &client.Method{Method: "card"},
						Lines: []client.NewLine{{SKU: sku, Quantity: 1, UnitPrice: 100}},
					})
					if err != nil || o.State != "confirmed" {
						t.Errorf("order %d of customer %d while node %d dies: %v, %v", i, customer, victim, o, err)
					}
					placed.Add(1)
				}
			})
		}
		c.until("some orders", func() bool { return placed.Load() > customers })
		c.dev("kill", victim)
		wg.Wait()
		if _, err := c.c.Adjust(ctx, "adjust-"+sku, sku, client.StockChange{Quantity: -adjusted}); err != nil {
			t.Errorf("all that is left when node %d has died: %v", victim, err)
		}
		stock, err := c.c.Stock(ctx, sku)
		if err != nil || stock.Available != 0 || stock.OnHand != customers*each {
			t.Errorf("%+v, %v; want %d on hand, all of them sold", stock, err, customers*each)
		}
		c.restart(victim)
	}
	c.audit()
}

// A node joins, another goes, all start again: customers notice nothing, and the books agree.
func TestTheClusterGrowsAndShrinksUnderOrders(t *testing.T) {
	dir, port := t.TempDir(), freeBase(t)
	c := start(t, dir, port)
	ctx := t.Context()
	for _, sku := range []string{"TEA-GREEN", "MUG-RED"} {
		if _, err := c.c.Receive(ctx, "smoke-"+sku, sku, client.StockChange{Quantity: 100_000}); err != nil {
			t.Fatal(err)
		}
	}
	ordering, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var placed atomic.Int64
	for customer := range 2 {
		wg.Go(func() {
			for i := 0; ordering.Err() == nil; i++ {
				if _, err := c.c.PlaceOrder(ctx, fmt.Sprintf("grow-%d-%d", customer, i), order(fmt.Sprintf("g%d", customer), 1)); err != nil {
					t.Errorf("an order was lost: %v", err)
					return
				}
				placed.Add(1)
			}
		})
	}
	run := func(want string, args ...string) {
		t.Helper()
		if out, code := c.hanse(args...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("hanse %s: exit %d, want %q in:\n%s", strings.Join(args, " "), code, want, out)
		}
	}
	run("node 4 is active", "dev", "add", "--http-port", strconv.Itoa(port))
	n, err := c.c.Node(ctx, 4)
	if err != nil || n.State != client.Active || n.Replicas == 0 {
		t.Fatalf("node 4 is %+v, %v, want it active, with replicas", n, err)
	}
	run("can be decommissioned", "node", "decommission", "3", "--dry-run")
	run("node 3: decommissioned", "node", "decommission", "3", "--wait")
	before := placed.Load()
	c.until("orders without node 3", func() bool { return placed.Load() > before+20 })
	stop()
	wg.Wait()
	run("node.joined", "node", "events")
	c.audit()

	if out, code := c.hanse("dev", "start", "3", "--http-port", strconv.Itoa(port)); code != 1 {
		t.Errorf("hanse dev start 3: exit %d, %s; want that a decommissioned node is not started", code, out)
	}

	// The added node comes back with the rest; the one that has gone is not started.
	c.until("it is noted that node 3 has gone", func() bool {
		seen, err := os.ReadFile(filepath.Join(dir, "nodes.json"))
		return err == nil && strings.Contains(string(seen), `"decommissioned":[3]`)
	})
	c.stop()
	c = start(t, dir, port)
	for _, want := range []string{"2 nodes and 1 added", "node 3 has been decommissioned, and is not started"} {
		if said := c.out.String(); !strings.Contains(said, want) || strings.Contains(said, "crashed") {
			t.Errorf("after the restart, without %q or with a crash: %s", want, said)
		}
	}
	for key := range 2 {
		again, err := c.c.PlaceOrder(ctx, fmt.Sprintf("grow-%d-0", key), order(fmt.Sprintf("g%d", key), 1))
		if err != nil || !again.Replayed {
			t.Errorf("an order from before, again: %+v, %v", again, err)
		}
	}
	c.audit()
	t.Logf("%d orders", placed.Load())
}

func TestCommandLineOrdersShipsAndTellsTheStory(t *testing.T) {
	c := start(t, t.TempDir(), freeBase(t))
	file := filepath.Join(t.TempDir(), "order.json")
	body := `{"customer_id": "ann", "currency": "EUR", "payment": {"method": "card"}, "lines": [{"sku": "LAST-ONE", "quantity": 1, "unit_price": 9900}]}`
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := c.hanse("order", "place", file, "--json")
	var o client.Order
	if err := json.Unmarshal([]byte(out), &o); err != nil || code != 0 || o.State != "confirmed" {
		t.Fatalf("place: exit %d, %v: %s", code, err, out)
	}
	for _, step := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"order", "place", file}, 1, ""}, // there was only one
		{[]string{"order", "fulfill", o.ID}, 0, "fulfilled"},
		{[]string{"order", "return", o.ID, "--item", "1:1"}, 0, "fulfilled"},
		{[]string{"order", "return", o.ID, "--item", "1:1"}, 1, ""},
		{[]string{"order", "explain", o.ID}, 0, "came back"},
		{[]string{"stock", "get", "LAST-ONE"}, 0, "main"},
		{[]string{"payment", "get", o.PaymentID}, 0, "capture"},
		{[]string{"saga", "list", "--stuck"}, 0, "Nothing"},
		{[]string{"kv", "put", "a/b", "one"}, 0, "version 1"},
		{[]string{"kv", "cas", "a/b", "two", "--version", "1"}, 0, "version 2"},
		{[]string{"kv", "cas", "a/b", "three", "--version", "1"}, 1, ""},
		{[]string{"kv", "get", "a/b"}, 0, "two"},
		{[]string{"node", "list"}, 0, "healthy"},
		{[]string{"shard", "list"}, 0, "order/0"},
		{[]string{"order", "get", "nonsense"}, 1, ""},
		{[]string{"order", "frobnicate"}, 2, ""},
		{[]string{"stock", "receive", "X", "many"}, 2, ""},
	} {
		out, code := c.hanse(step.args...)
		if code != step.code || !strings.Contains(out, step.want) {
			t.Errorf("hanse %s: exit %d, want %d and %q in:\n%s", strings.Join(step.args, " "), code, step.code, step.want, out)
		}
	}
	cmd := exec.Command(program, "order", "get", o.ID, "--addr", "127.0.0.1:1", "--retry-for", "200ms")
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("without a cluster: exit %d, want 3: %s", cmd.ProcessState.ExitCode(), out)
	}
	c.audit()
}
