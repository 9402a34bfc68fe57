package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hanse/client"
	placement "hanse/internal/cluster"
)

const (
	// calmTime is how long customers are watched before something is done.
	calmTime = 20 * time.Second
	// balanceGoal is within what time replicas should be where they belong, slowdown how much slower a 99th percentile may become.
	balanceGoal = 60 * time.Second
	slowdown    = 2
)

// grow has two nodes join, decommissions one, and restarts all, while customers buy.
func (l *lab) grow(ctx context.Context) error {
	if l.replay != "" {
		if err := l.replayYear(ctx); err != nil {
			return err
		}
	}
	return l.sell(ctx, func(ctx context.Context) error {
		if err := wait(ctx, calmTime/2); err != nil { // connections and caches first
			return err
		}
		for range 2 {
			n := len(l.cluster.nodes) + 1
			if err := l.move(ctx, fmt.Sprintf("node %d joins", n), bound(n), l.join); err != nil {
				return err
			}
		}
		if err := l.move(ctx, "node 2 leaves", 0, func(ctx context.Context) error { return l.decommission(ctx, 2) }); err != nil {
			return err
		}
		return l.restart(ctx)
	})
}

// bound is the share of all replicas that may be moved when the n-th node joins: its own share, and a bit.
func bound(n int) float64 { return 1/float64(n) + 0.05 }

// replayYear runs a shop's year through the cluster.
func (l *lab) replayYear(ctx context.Context) error {
	var addrs []string
	for _, n := range l.numbers() {
		addrs = append(addrs, l.network.reach(clientsHost, host(n), restDoor))
	}
	begin := time.Now()
	cmd := exec.CommandContext(ctx, l.program, "replay", l.replay, "--no-audit", "--addr", strings.Join(addrs, ","))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("replay %s: %w: %s", l.replay, err, out[max(0, len(out)-1000):])
	}
	l.log("%6.1f s  the year is in the books, after %v", l.now().Seconds(), time.Since(begin).Round(time.Second))
	size, err := sizeOf(l.cluster.cfg.data(1))
	l.out.add("data of a node after the year", size, "MB")
	return err
}

// sizeOf adds the files below a directory up, in MB.
func sizeOf(dir string) (mb float64, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return skipMissing(err)
		}
		info, err := d.Info()
		if err == nil {
			mb += float64(info.Size()) / 1e6
		}
		return skipMissing(err)
	})
	return mb, err
}

// skipMissing forgives a file that was there a moment ago: a store replaces its files all the time.
func skipMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// move does something that makes replicas move, and measures until they are where they belong. Share bounds the part of them
// that may move; 0 for one that is not known beforehand.
func (l *lab) move(ctx context.Context, what string, share float64, do func(context.Context) error) error {
	if _, err := l.well(ctx); err != nil {
		return err
	}
	calm, sentBefore := l.now(), l.sent(ctx)
	if err := wait(ctx, calmTime); err != nil {
		return err
	}
	begin, sentAt := l.now(), l.sent(ctx)
	moved, err := l.moves(ctx)
	if err != nil {
		return err
	}
	l.log("%6.1f s  %s", begin.Seconds(), what)
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := l.awaitBalance(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	end, sent := l.now(), l.sent(ctx)
	after, err := l.moves(ctx)
	if err != nil {
		return err
	}
	shards, err := l.any.Shards(ctx)
	if err != nil {
		return err
	}
	replicas := 0
	for _, s := range shards.Shards {
		replicas += len(s.Replicas)
	}
	if err := wait(ctx, settled); err != nil {
		return err
	}
	l.log("%6.1f s  balanced after %.1f s, %d of %d replicas moved", l.now().Seconds(), (end - begin).Seconds(), after-moved, replicas)
	l.out.aim(what+": until balanced", (end - begin).Seconds(), "s", balanceGoal.Seconds())
	if moves := fmt.Sprintf("  replicas moved, of %d", replicas); share > 0 {
		l.out.aim(moves, float64(after-moved), "", share*float64(replicas))
	} else {
		l.out.add(moves, float64(after-moved), "")
	}
	usual := grown(sentBefore, sentAt) / (begin - calm).Seconds()
	l.out.add("  sent between nodes, more than usual", max(0, grown(sentAt, sent)-usual*(end-begin).Seconds())/1e6, "MB")
	l.compare(window{calm, begin}, window{begin, end})
	return nil
}

// join starts one more node.
func (l *lab) join(ctx context.Context) error {
	token, err := l.any.CreateJoinToken(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(l.dir, "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	return l.cluster.join(file)
}

// decommission takes a node away.
func (l *lab) decommission(ctx context.Context, node int) error {
	p := l.cluster.nodes[node-1]
	p.retire() // it ends by itself when it is empty
	_, err := l.any.Decommission(ctx, uint64(node), "scenario", false)
	return err
}

// awaitBalance waits until every member has its share of replicas and leaderships, and nothing moves.
func (l *lab) awaitBalance(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*balanceGoal)
	defer cancel()
	for {
		why := l.unbalanced(ctx)
		if why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not balanced: %s: %w", why, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// unbalanced says why replicas are not where they belong, empty when they are.
func (l *lab) unbalanced(ctx context.Context) string {
	v, err := l.any.Overview(ctx)
	if err != nil {
		return err.Error()
	}
	shards, err := l.any.Shards(ctx)
	if err != nil {
		return err.Error()
	}
	replicas, leaders := make(map[uint64]int), make(map[uint64]int)
	for _, n := range v.Nodes {
		switch {
		case n.State == client.Active:
			replicas[n.ID], leaders[n.ID] = 0, 0
		case n.State != client.Decommissioned:
			return fmt.Sprintf("node %d is %s", n.ID, n.State)
		}
	}
	there := 0
	for _, p := range l.cluster.nodes {
		if !p.retired() {
			there++
		}
	}
	if len(replicas) != there {
		return fmt.Sprintf("%d of %d nodes are active", len(replicas), there)
	}
	for _, s := range shards.Shards {
		if s.Move != nil || s.State != "ok" {
			return fmt.Sprintf("%s is %s", s.ID, s.State)
		}
		leaders[s.Leader]++
		for _, r := range s.Replicas {
			replicas[r.Node]++
		}
	}
	if spread(replicas) > 1 || !fair(leaders) {
		return fmt.Sprintf("replicas %v, leaders %v", replicas, leaders)
	}
	return ""
}

// spread is the difference between the most and the least.
func spread(counts map[uint64]int) int {
	least, most := 1<<30, 0
	for _, n := range counts {
		least, most = min(least, n), max(most, n)
	}
	return most - least
}

// fair reports whether each node leads its share.
func fair(leaders map[uint64]int) bool {
	total := 0
	for _, n := range leaders {
		total += n
	}
	least, most := placement.FairShare(total, len(leaders))
	for _, n := range leaders {
		if n < least || n > most {
			return false
		}
	}
	return true
}

// moves counts the moves that the cluster has finished.
func (l *lab) moves(ctx context.Context) (n int, err error) {
	const page = 1000
	for after := uint64(0); ; {
		events, err := l.any.ClusterEvents(ctx, after, page)
		if err != nil {
			return 0, err
		}
		for _, e := range events {
			if e.Type == "move.finished" {
				n++
			}
			after = e.Seq
		}
		if len(events) < page {
			return n, nil
		}
	}
}

// sent is how many bytes each node has sent to the others. One that does not answer is left out.
func (l *lab) sent(ctx context.Context) map[int]float64 {
	sums := make(map[int]float64)
	for i := range l.cluster.nodes {
		metrics, err := l.metrics(ctx, i+1)
		if err != nil {
			continue
		}
		sums[i+1] = 0
		for line := range bytes.Lines(metrics) {
			if name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " "); strings.HasPrefix(name, "hanse_transport_peer_sent_bytes_total{") {
				n, _ := strconv.ParseFloat(value, 64) // Prometheus writes numbers
				sums[i+1] += n
			}
		}
	}
	return sums
}

// grown is how much was sent between two looks by the nodes that answered the second. One that is new began with nothing.
func grown(before, after map[int]float64) (bytes float64) {
	for n, sum := range after {
		bytes += sum - before[n]
	}
	return bytes
}

// restart stops every node with SIGTERM and starts it again, one after the other, as an upgrade does.
func (l *lab) restart(ctx context.Context) error {
	if _, err := l.well(ctx); err != nil {
		return err
	}
	calm := l.now()
	if err := wait(ctx, calmTime); err != nil {
		return err
	}
	begin := l.now()
	for i, p := range l.cluster.nodes {
		if p.retired() {
			continue
		}
		l.log("%6.1f s  node %d is restarted", l.now().Seconds(), i+1)
		if err := errors.Join(p.hold(ctx, syscall.SIGTERM), p.release()); err != nil {
			return err
		}
		if err := l.ready(ctx); err != nil {
			return err
		}
	}
	end := l.now()
	if err := wait(ctx, settled); err != nil {
		return err
	}
	l.out.add("rolling restart", (end - begin).Seconds(), "s")
	l.compare(window{calm, begin}, window{begin, end})
	return nil
}
