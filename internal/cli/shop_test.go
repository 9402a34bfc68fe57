package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hanse/internal/dev"
	"hanse/internal/freeport"
	"hanse/internal/node"
	"hanse/internal/psp"
	"hanse/internal/replay"
)

// cluster is one real node with a provider, in this process.
type cluster struct {
	t         *testing.T
	addr, psp string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	provider, err := psp.New(psp.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	ledger := httptest.NewServer(provider.Handler())
	cfg := node.DefaultConfig()
	cfg.Dir, cfg.Bootstrap, cfg.PSP = t.TempDir(), true, ledger.URL
	first, err := freeport.Block()
	if err != nil {
		t.Fatal(err)
	}
	ports := dev.NodePorts(first, 1)
	cfg.HTTPAddr, cfg.PeerAddr, cfg.GossipAddr = dev.Loopback(ports.HTTP), dev.Loopback(ports.Peer), dev.Loopback(ports.Gossip)
	n, err := node.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the node ended with %v", err)
		}
		ledger.Close()
		provider.Close()
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get("http://" + cfg.HTTPAddr + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the node does not get ready")
		}
	}
	return &cluster{t: t, addr: cfg.HTTPAddr, psp: ledger.URL}
}

// hanse runs a command against the cluster.
func (c *cluster) hanse(args ...string) (code int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	code = Run(c.t.Context(), append(args, "--addr", c.addr), strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// object runs a command and decodes its JSON.
func (c *cluster) object(wantCode int, args ...string) map[string]any {
	c.t.Helper()
	code, out, errOut := c.hanse(append(args, "--json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != wantCode {
		c.t.Fatalf("hanse %v: exit %d, want %d (%v)\n%s%s", args, code, wantCode, err, out, errOut)
	}
	return v
}

func wantKeys(t *testing.T, v map[string]any, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if _, ok := v[k]; !ok {
			t.Errorf("the JSON has no %q: %v", k, v)
		}
	}
}

// stopAt is a writer that calls stop once a word is written.
type stopAt struct {
	io.Writer
	word string
	stop func()
}

func (s stopAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.word)) {
		s.stop()
	}
	return s.Writer.Write(p)
}

// A shop's year in small: replayed, replayed again, audited, measured, and found out when the provider's ledger differs.
func TestReplayAuditBench(t *testing.T) {
	c := startCluster(t)
	first := c.object(exitDone, "replay", "--synthetic", "--limit", "40", "--workers", "8", "--no-audit")
	wantKeys(t, first, "orders", "lines", "units", "amount_minor", "returns_booked", "returns_rejected", "refund_minor", "adjustments",
		"rejected_orders", "seconds", "orders_per_second", "latency_ms", "audit_differences", "expected", "as_expected")
	for name, want := range first["expected"].(map[string]any) {
		if first[name] != want {
			t.Errorf("first replay: %s is %v, expected %v", name, first[name], want)
		}
	}
	if first["as_expected"] != true {
		t.Errorf("first replay: %v, want all as expected", first)
	}
	if first["orders"] != 40.0 || first["rejected_orders"] != 0.0 || first["replayed"] != 0.0 || first["audit_differences"] != nil {
		t.Errorf("first replay: %v; want 40 orders, none of them rejected or replayed, and no audit", first)
	}
	wantKeys(t, first["latency_ms"].(map[string]any), "p50", "p95", "p99", "max")

	// Again, and further: what is booked stays booked once.
	again := c.object(exitDone, "replay", "--synthetic", "--limit", "40", "--no-audit")
	for _, same := range []string{"orders", "lines", "units", "amount_minor", "returns_booked", "refund_minor", "adjustments"} {
		if again[same] != first[same] {
			t.Errorf("second replay: %s is %v, was %v", same, again[same], first[same])
		}
	}
	if again["replayed"] != 40.0 {
		t.Errorf("second replay: %v orders were there already, want all 40", again["replayed"])
	}

	// An audit that is interrupted does not take the summary with it.
	ctx, stop := context.WithCancel(t.Context())
	var out, errOut bytes.Buffer
	code := Run(ctx, []string{"replay", "--synthetic", "--limit", "40", "--addr", c.addr}, nil, &out, stopAt{&errOut, "auditing", stop})
	for _, want := range []string{"IN THE INVENTED SHOP, UP TO ORDER 40\n", "orders", "(40 of them placed by an earlier run)"} {
		if code != exitRefused || !strings.Contains(out.String(), want) || !strings.Contains(errOut.String(), "interrupted") {
			t.Errorf("interrupted while auditing: exit %d\n%s%s\nwant %q", code, &out, &errOut, want)
		}
	}

	report := c.object(exitDone, "audit", "--psp", c.psp)
	wantKeys(t, report, "orders", "skus", "payments", "checked_at", "differences", "ledger_compared")
	if report["ledger_compared"] != true {
		t.Errorf("audit: %v, want that the ledger was compared", report)
	}
	if report["orders"] != 40.0 || report["payments"] != 40.0 || len(report["differences"].([]any)) != 0 {
		t.Errorf("audit: %v; want 40 orders and payments, and no difference", report)
	}

	bench := c.object(exitDone, "bench", "orders", "--skus", "20", "--clients", "4", "--warmup", "0", "--duration", "100ms", "--workload", "zipf")
	wantKeys(t, bench, "workload", "clients", "nodes", "seconds", "orders_per_second", "latency_ms", "errors", "oversold")
	if bench["oversold"] != 0.0 || bench["errors"] != 0.0 || bench["nodes"] != 1.0 || bench["clients"] != 4.0 {
		t.Errorf("bench orders: %v; want 4 clients on one node, no errors, nothing oversold", bench)
	}

	resp, err := http.Post(c.psp+"/v1/operations", "application/json",
		strings.NewReader(`[{"payment_id":"pay_00000000000000000000000000","kind":"authorize","amount":7,"currency":"GBP","key":"stray"}]`))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	report = c.object(exitRefused, "audit", "--psp", c.psp)
	differences := report["differences"].([]any)
	if len(differences) != 1 || differences[0].(map[string]any)["kind"] != "ledger_has_more" {
		t.Errorf("audit with a stray charge: %v, want that one difference", differences)
	}
	code, said, _ := c.hanse("audit", "--psp", c.psp)
	if want := "ledger_has_more pay_00000000000000000000000000: expected a payment, found authorized 7, captured 0, refunded 0, voided 0\n1 difference\n"; code != exitRefused || !strings.HasSuffix(said, want) {
		t.Errorf("audit: exit %d\n%swant 1 and\n%s", code, said, want)
	}
	if code, out, _ := c.hanse("audit", "--psp", "none"); code != exitDone || !strings.HasSuffix(out, "\nNo difference; the provider's ledger was not compared.\n") {
		t.Errorf("audit --psp none: exit %d\n%s", code, out)
	}
	if report := c.object(exitDone, "audit", "--psp", "none"); report["ledger_compared"] != false {
		t.Errorf("audit --psp none: %v, want that the ledger was not compared", report)
	}
	if code, out, said := c.hanse("audit", "--psp", "http://127.0.0.1:1"); code != exitUnavailable || out != "" || !strings.Contains(said, "read the provider's ledger") {
		t.Errorf("audit with a provider that does not answer: exit %d\n%s%s", code, out, said)
	}
	if code, _, said := c.hanse("audit", "--psp", "nobody"); code != exitUsage || !strings.Contains(said, "want the provider's URL") {
		t.Errorf("audit --psp nobody: exit %d, %s", code, said)
	}
}

// A file that cannot be read is a mistake, and no reason to book what nobody asked for.
func TestReplayOfAnAbsentFileBooksNothing(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent.csv.gz")
	var errOut bytes.Buffer
	code := Run(t.Context(), []string{"replay", absent, "--limit", "5", "--addr", "127.0.0.1:1"}, nil, io.Discard, &errOut)
	if code != exitUsage || !strings.Contains(errOut.String(), "open "+absent) || !strings.Contains(errOut.String(), "--synthetic") {
		t.Errorf("exit %d, %q, want that there is no such file, and what to do", code, errOut.String())
	}
}

// The keys of the invented shop are its own, and those of its first orders the same whatever the limit.
func TestTheInventedShopIsARunOfItsOwn(t *testing.T) {
	few, err := new(app).plan(nil, replay.Options{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	more, err := new(app).plan(nil, replay.Options{Limit: 6})
	if err != nil {
		t.Fatal(err)
	}
	if few.Truth.Orders != 5 || !strings.HasPrefix(few.Receipts[0].Key, "synthetic-recv-") {
		t.Errorf("%d orders, the first key is %s; want 5, and a key of run synthetic", few.Truth.Orders, few.Receipts[0].Key)
	}
	orders := make(map[string]*replay.Order)
	for _, l := range more.Lanes {
		for _, a := range l.Actions {
			if a.Order != nil {
				orders[a.Order.Key] = a.Order
			}
		}
	}
	for _, l := range few.Lanes {
		for _, a := range l.Actions {
			if a.Order != nil && !reflect.DeepEqual(a.Order.Lines, orders[a.Order.Key].Lines) {
				t.Errorf("order %s is another with a larger limit", a.Order.Key)
			}
		}
	}
	named, err := new(app).plan(nil, replay.Options{Run: "mine", Limit: 1})
	if err != nil || !strings.HasPrefix(named.Receipts[0].Key, "mine-") {
		t.Errorf("with --run mine the first key is %s (%v)", named.Receipts[0].Key, err)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	for _, test := range []struct {
		args string
		code int
	}{
		{"bench orders --workload cold", exitUsage},
		{"bench orders --clients 0", exitUsage},
		{"bench orders --skus 3", exitUsage},
		{"bench orders --stock 0", exitUsage},
		{"bench orders --duration 0s", exitUsage},
		{"replay", exitUsage},
		{"replay nothing.csv --workers 0", exitUsage},
		{"replay nothing.csv --synthetic", exitUsage},
		{"replay nothing.csv --limit -1", exitUsage},
		{"audit more", exitUsage},
		{"psp --decline-rate 2", exitUsage},
		{"psp --latency-ms -1", exitUsage},
		{"psp --callback-url notaurl", exitUsage},
	} {
		var out, errOut bytes.Buffer
		code := Run(t.Context(), append(strings.Fields(test.args), "--addr", nobody), strings.NewReader(""), &out, &errOut)
		if code != test.code || errOut.Len() == 0 {
			t.Errorf("hanse %s: exit %d (%s), want %d and a reason", test.args, code, errOut.String(), test.code)
		}
	}
}
