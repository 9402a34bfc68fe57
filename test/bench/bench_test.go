package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"hanse/internal/bench"
)

func TestTableComparesWithTheBestOfPostgres(t *testing.T) {
	var b strings.Builder
	if err := table(&b, []measurement{
		{System: "postgres", Nodes: 1, Workload: "hot", Clients: 8, PerSecond: 1000, P50: 5, P99: 9.25},
		{System: "postgres", Nodes: 1, Workload: "hot", Clients: 64, PerSecond: 2000, P50: 30, P99: 70},
		{System: "hanse", Nodes: 3, Workload: "hot", Clients: 64, PerSecond: 9000, P50: 7, P99: 12},
		{System: "hanse", Nodes: 3, Workload: "zipf", Clients: 64, PerSecond: 9000.4, P50: 7, P99: 12},
	}); err != nil {
		t.Fatal(err)
	}
	const want = `    system  nodes  workload  clients  orders/s  p50 ms  p99 ms  x best postgres
  postgres      1       hot        8      1000    5.00    9.25             0.50
  postgres      1       hot       64      2000   30.00   70.00             1.00
     hanse      3       hot       64      9000    7.00   12.00             4.50
     hanse      3      zipf       64      9000    7.00   12.00                -
`
	if got := b.String(); got != want {
		t.Errorf("table:\n%swant\n%s", got, want)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	for _, args := range []string{
		"", "kv", "orders --systems oracle", "orders --workloads cold", "orders --clients 0", "orders --clients many", "orders --nodes -1", "orders --set fsync", "orders --fast",
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("bench %s: no error", args)
		}
	}
}

// serverDir returns a directory that the server's user can reach.
func serverDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hanse-bench-test-") //nolint:usetesting // that of t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The comparison needs a PostgreSQL server on the machine.
func TestPostgres(t *testing.T) {
	if _, err := postgresProgram("postgres"); err != nil {
		t.Skip(err)
	}
	dir := serverDir(t)
	var out strings.Builder
	err := run(t.Context(), strings.Fields("orders --systems postgres --workloads hot --clients 4 --pool 2 --seconds 0.2 --warmup 0 --skus 50 --json --dir "+dir), &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Results []measurement }
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || len(got.Results) != 1 {
		t.Fatalf("printed %q (%v), want one result", out.String(), err)
	}
	if m := got.Results[0]; m.System != "postgres" || m.Nodes != 1 || m.Workload != "hot" || m.Clients != 4 || m.PerSecond <= 0 || m.P99 < m.P50 || m.P50 <= 0 {
		t.Errorf("result %+v", m)
	}
}

// What the server confirms is compared with its tables.
func TestPostgresBooksAreChecked(t *testing.T) {
	if _, err := postgresProgram("postgres"); err != nil {
		t.Skip(err)
	}
	dir := serverDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := startPostgres(ctx, dir, map[string]string{"fsync": "off", "listen_addresses": ""})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	sell := func(stock int64) *bench.Result {
		if err := s.reset(ctx, 10, stock); err != nil {
			t.Fatal(err)
		}
		p, err := s.pool(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close(ctx)
		names := [][]byte{[]byte("bench-00000"), []byte("bench-00001")}
		c := newPostgresClient(p, names, 1, 2)
		r := &bench.Result{Confirmed: make([]int64, 10), Unknown: make([]int64, 10)}
		for range 3 {
			err := c.Order(ctx, []int{0, 1})
			switch _, refused := errors.AsType[*bench.Refusal](err); {
			case err == nil:
				r.Orders++
				r.Confirmed[0]++
				r.Confirmed[1]++
			case refused:
				r.Refused++
			default:
				t.Fatal(err)
			}
		}
		return r
	}
	r := sell(2)
	if r.Orders != 2 || r.Refused != 1 {
		t.Errorf("sold %d and refused %d of 3 orders from a stock of 2", r.Orders, r.Refused)
	}
	if err := s.check(ctx, r); err != nil {
		t.Errorf("check of what was sold: %v", err)
	}
	r.Confirmed[0]++
	if err := s.check(ctx, r); err == nil {
		t.Error("check accepts an order more than the tables have")
	}
	r.Confirmed[0]--
	conn, err := s.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "UPDATE stock SET allocated = allocated + 1 WHERE sku = 'bench-00000'"); err != nil {
		t.Fatal(err)
	}
	if err := s.check(ctx, r); err == nil {
		t.Error("check accepts a unit that was sold twice")
	}
}
