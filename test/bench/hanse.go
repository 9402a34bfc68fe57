package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hanse/internal/bench"
	"hanse/internal/dev"
	"hanse/internal/freeport"
)

// hanseCluster is a cluster of real processes on free ports.
type hanseCluster struct {
	nodes []*exec.Cmd
	addrs []string // REST
	logs  []string
}

// buildHanse builds the program under test.
func buildHanse(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "hanse")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "hanse/cmd/hanse").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hanse: %w: %s", err, out)
	}
	return path, nil
}

// startHanse starts n nodes with their data below dir and waits until they are ready.
func startHanse(ctx context.Context, program, dir string, n int) (*hanseCluster, error) {
	c := new(hanseCluster)
	ports, peers := make([]dev.Ports, n), make([]string, n)
	for i := range n {
		first, err := freeport.Block()
		if err != nil {
			return nil, err
		}
		ports[i] = dev.NodePorts(first, 1)
		c.addrs = append(c.addrs, dev.Loopback(ports[i].HTTP))
		peers[i] = fmt.Sprintf("%d=%s/%s", i+1, c.addrs[i], dev.Loopback(ports[i].Peer))
	}
	for i := range n {
		logName := filepath.Join(dir, fmt.Sprintf("node%d.log", i+1))
		log, err := os.Create(logName)
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		cmd := exec.Command(program, "serve", "--data", filepath.Join(dir, fmt.Sprintf("node%d", i+1)), "--id", fmt.Sprint(i+1),
			"--bootstrap", "--http", c.addrs[i], "--peer", dev.Loopback(ports[i].Peer), "--gossip", dev.Loopback(ports[i].Gossip), "--peers", strings.Join(peers, ","), "--psp", "instant",
			// One shard a service suits two cores that all nodes share: each more is an entry more to every sync.
			"--shards", "order=1,inventory=1,payment=1")
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err = cmd.Start()
		log.Close() // the child has its own
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		c.nodes, c.logs = append(c.nodes, cmd), append(c.logs, logName)
	}
	for i := range c.addrs {
		if err := c.ready(ctx, i); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

func (c *hanseCluster) ready(ctx context.Context, i int) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addrs[i]+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(c.logs[i]) // what there is of it
			return fmt.Errorf("node %d does not get ready: %w: %s", i+1, ctx.Err(), log[max(0, len(log)-2000):])
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop asks every node to stop and waits for them.
func (c *hanseCluster) stop() error {
	for _, n := range c.nodes {
		_ = n.Process.Signal(syscall.SIGTERM) // an error means that it has ended, which Wait tells
	}
	var errs []error
	for i, n := range c.nodes {
		if err := n.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("node %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

func hanseOrders(ctx context.Context, o options, nodes int) (results []measurement, err error) {
	program, err := buildHanse(ctx, o.dir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.dir, fmt.Sprintf("hanse%d", nodes))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	start, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c, err := startHanse(start, program, dir, nodes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop(), os.RemoveAll(dir)) }()
	for _, w := range o.workloads {
		for _, n := range o.clients {
			shop, err := bench.Open(ctx, c.addrs, fmt.Sprintf("bench-%s-%d", w, n), o.load.SKUs, enoughStock)
			if err != nil {
				return results, err
			}
			m, err := measure(o, "hanse", nodes, w, n, func(load bench.Load) (*bench.Result, error) {
				r, oversold, err := shop.Sell(ctx, load, n)
				if err == nil && oversold > 0 {
					err = fmt.Errorf("%d units sold that are not there", oversold)
				}
				return r, err
			})
			if err != nil {
				return results, err
			}
			results = append(results, m)
		}
	}
	return results, nil
}
