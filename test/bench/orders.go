package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hanse/internal/bench"
)

// enoughStock is more than a run can sell of one SKU.
const enoughStock = 100_000_000

// startTime bounds how long a system may take to come up.
const startTime = time.Minute

// compareOrders measures placing and confirming orders of three lines at each system, one system at a time.
func compareOrders(ctx context.Context, o options) ([]measurement, error) {
	results := []measurement{}
	if slices.Contains(o.systems, "postgres") {
		r, err := postgresOrders(ctx, o)
		if results = append(results, r...); err != nil {
			return results, err
		}
	}
	if slices.Contains(o.systems, "hanse") {
		for _, n := range o.nodes {
			r, err := hanseOrders(ctx, o, n)
			if results = append(results, r...); err != nil {
				return results, err
			}
		}
	}
	return results, nil
}

// measure has a load run and its books checked, and tells about it.
func measure(o options, system string, nodes int, w bench.Workload, clients int, sell func(bench.Load) (*bench.Result, error)) (measurement, error) {
	load := o.load
	load.Workload = w
	r, err := sell(load)
	if err != nil {
		return measurement{}, fmt.Errorf("%s, %s, %d clients: %w", system, w, clients, err)
	}
	if r.Errors > 0 {
		return measurement{}, fmt.Errorf("%s, %s: %d orders without an answer, the first: %w", system, w, r.Errors, r.FirstError)
	}
	if r.Refused > 0 {
		return measurement{}, fmt.Errorf("%s, %s: %d orders were refused, and there is enough of everything", system, w, r.Refused)
	}
	m := measurement{
		System: system, Nodes: nodes, Workload: string(w), Clients: clients, PerSecond: r.PerSecond(),
		P50: milliseconds(r.Latency.Quantile(0.5)), P99: milliseconds(r.Latency.Quantile(0.99)),
	}
	fmt.Fprintf(o.report, "%s, %d nodes, %s, %d clients: %.0f orders/s\n", system, nodes, w, m.Clients, m.PerSecond)
	return m, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pools are the numbers of connections that are tried: two cores run few transactions at once, and on a hot row more of
// them only wait.
var pools = []int{4, 8, 16, 32, 64}

func postgresOrders(ctx context.Context, o options) (results []measurement, err error) {
	dir := filepath.Join(o.dir, "postgres")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	settings := make(map[string]string)
	for name, value := range postgresSettings {
		settings[name] = value
	}
	for name, value := range o.settings {
		settings[name] = value
	}
	start, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s, err := startPostgres(start, dir, settings)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(dir)) }()
	for _, w := range o.workloads {
		size := o.pool
		if size == 0 {
			if size, err = s.bestPool(ctx, o, w); err != nil {
				return results, err
			}
		}
		for _, n := range o.clients {
			m, err := s.measure(ctx, o, w, n, min(n, size))
			if err != nil {
				return results, err
			}
			results = append(results, m)
		}
	}
	return results, nil
}

// bestPool tries how many connections PostgreSQL takes best under a workload.
func (s *postgresServer) bestPool(ctx context.Context, o options, w bench.Workload) (int, error) {
	o.load.Duration, o.load.Warmup = min(o.load.Duration, 3*time.Second), min(o.load.Warmup, time.Second)
	best, most := 0, 0.0
	for _, size := range pools {
		m, err := s.measure(ctx, o, w, size, size)
		if err != nil {
			return 0, err
		}
		if m.PerSecond > most {
			best, most = size, m.PerSecond
		}
	}
	fmt.Fprintf(o.report, "postgres, %s: %d connections are best\n", w, best)
	return best, nil
}

func (s *postgresServer) measure(ctx context.Context, o options, w bench.Workload, clients, connections int) (_ measurement, err error) {
	if err := s.reset(ctx, o.load.SKUs, enoughStock); err != nil {
		return measurement{}, err
	}
	p, err := s.pool(ctx, connections)
	if err != nil {
		return measurement{}, err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	names := make([][]byte, o.load.SKUs)
	for i := range names {
		names[i] = fmt.Appendf(nil, "bench-%05d", i)
	}
	all := make([]bench.Client, clients)
	for i := range all {
		all[i] = newPostgresClient(p, names, i, o.load.Lines)
	}
	return measure(o, "postgres", 1, w, clients, func(load bench.Load) (*bench.Result, error) {
		r, err := bench.Run(ctx, load, all)
		if err == nil {
			err = s.check(ctx, r)
		}
		return r, err
	})
}
