package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"hanse/client"
)

const (
	// pauseTime is shorter than the shortest election timeout, 500 ms, by less than a heartbeat's time and a bit.
	pauseTime = 400 * time.Millisecond
	// A pause that the machine made longer than this says nothing about elections: it is repeated.
	longestPause = 430 * time.Millisecond
	// lossShare is the share of packets that the bad link loses, in both directions.
	lossShare = 0.1
)

// terms are those of all shards.
func terms(shards *client.Shards) map[string]uint64 {
	all := make(map[string]uint64)
	for _, s := range shards.Shards {
		all[s.ID] = s.Term
	}
	return all
}

// elected counts the elections between two looks: a term that rose by two was two of them.
func elected(before, after map[string]uint64) (n int, which []string) {
	for _, id := range slices.Sorted(maps.Keys(after)) {
		if was := before[id]; was != after[id] {
			n += int(after[id] - was)
			which = append(which, fmt.Sprintf("%s: term %d → %d", id, was, after[id]))
		}
	}
	return n, which
}

// pause stops nodes that lead, one after the other, for less than an election takes.
func (l *lab) pause(ctx context.Context) error {
	elections, repeated := 0, 0
	for i := 0; i < l.times; {
		shards, err := l.well(ctx)
		if err != nil {
			return err
		}
		before := terms(shards)
		node := int(shards.Shards[i%len(shards.Shards)].Leader)
		p := l.cluster.nodes[node-1]
		begin := time.Now()
		p.signal(syscall.SIGSTOP)
		select {
		case <-ctx.Done():
		case <-time.After(pauseTime):
		}
		p.signal(syscall.SIGCONT)
		took := time.Since(begin)
		if shards, err = l.well(ctx); err != nil {
			return err
		}
		n, which := elected(before, terms(shards))
		if took > longestPause && repeated < l.times {
			repeated++
			continue
		}
		if elections += n; n > 0 {
			l.log("%6.1f s  elections after node %d stood still for %v: %v", l.now().Seconds(), node, took, which)
		}
		i++
	}
	l.out.add("pauses of 400 ms of a leader", float64(l.times), "")
	l.out.add("repeated, for the machine made them longer than 430 ms", float64(repeated), "")
	l.out.aim("elections", float64(elections), "", 0)
	return nil
}

// loss has a link lose packets while customers buy.
func (l *lab) loss(ctx context.Context) error {
	shards, err := l.well(ctx)
	if err != nil {
		return err
	}
	from, to := busiestLink(shards)
	before := terms(shards)
	l.log("%6.1f s  %.0f %% of the packets between nodes %d and %d are lost for %v", l.now().Seconds(), 100*lossShare, from, to, l.cfg.length())
	t := trouble{Loss: lossShare}
	if err := l.network.shape(ctx, map[link]trouble{{from, to}: t, {to, from}: t}); err != nil {
		return err
	}
	begin := l.now()
	sold := l.sell(ctx, func(ctx context.Context) error { return wait(ctx, l.cfg.length()) })
	end := l.now()
	err = l.network.shape(context.WithoutCancel(ctx), nil)
	if err := errors.Join(err, sold); err != nil {
		return err
	}
	if shards, err = l.well(ctx); err != nil {
		return err
	}
	n, which := elected(before, terms(shards))
	if n > 0 {
		l.log("%6.1f s  elections: %v", l.now().Seconds(), which)
	}
	l.out.add("minutes with 10 % loss on one link", l.cfg.minutes, "")
	l.out.aim("elections", float64(n), "", 2)
	l.live("meanwhile", window{begin, end})
	return nil
}

// busiestLink returns two nodes of which one leads most and the other follows it.
func busiestLink(shards *client.Shards) (leader, follower host) {
	shared := make(map[link]int)
	for _, s := range shards.Shards {
		for _, r := range s.Replicas {
			if r.Node != s.Leader {
				shared[link{host(s.Leader), host(r.Node)}]++
			}
		}
	}
	var best link
	for _, l := range slices.SortedFunc(maps.Keys(shared), func(a, b link) int { return int(a.From-b.From)*1000 + int(a.To-b.To) }) {
		if shared[l] > shared[best] {
			best = l
		}
	}
	return best.From, best.To
}

// zoneTime is how long a zone stays down.
const zoneTime = 20 * time.Second

// zone kills all nodes of each zone in turn, for a while.
func (l *lab) zone(ctx context.Context) error {
	zones := make(map[string][]int)
	for n := 1; n <= l.cluster.cfg.Nodes; n++ {
		z := l.cluster.cfg.Zones[n-1]
		zones[z] = append(zones[z], n)
	}
	return l.sell(ctx, func(ctx context.Context) error {
		for _, z := range slices.Sorted(maps.Keys(zones)) {
			if _, err := l.well(ctx); err != nil {
				return err
			}
			calm := l.now()
			if err := wait(ctx, zoneTime/2); err != nil {
				return err
			}
			begin := l.now()
			l.log("%6.1f s  zone %s, nodes %v, is killed", begin.Seconds(), z, zones[z])
			if err := l.cluster.each(zones[z], func(p *process) error { return p.hold(ctx, syscall.SIGKILL) }); err != nil {
				return err
			}
			err := wait(ctx, zoneTime)
			end := l.now()
			if err := errors.Join(err, l.cluster.each(zones[z], (*process).release)); err != nil {
				return err
			}
			l.live("before zone "+z+" dies", window{calm, begin})
			l.live("without zone "+z, window{begin, end})
		}
		_, err := l.well(ctx)
		return err
	})
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// sell has customers buy while something is done, and returns when the last of them has an answer.
func (l *lab) sell(ctx context.Context, meanwhile func(context.Context) error) error {
	selling, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { l.shop.sell(selling) })
	err := meanwhile(ctx)
	stop()
	wg.Wait()
	return err
}

// settled is what a customer may take at most: figures of a time are read when those of its orders are known.
const settled = inTime + waitOrder

// live notes how the customers of a time fared, and returns it.
func (l *lab) live(when string, w window) availability {
	a := l.traffic(w)
	l.out.add("orders "+when, float64(a.Sent), "")
	l.out.add("  answered within 2 s", 100*a.Overall, "%")
	l.out.add("  p50", a.P50, "ms")
	l.out.add("  p99", a.P99, "ms")
	l.out.add("  longest", a.Max, "ms")
	return a
}

// compare notes how the customers fared before something was done and meanwhile.
func (l *lab) compare(before, meanwhile window) {
	usual := l.traffic(before)
	a := l.traffic(meanwhile)
	l.out.add("  orders meanwhile", float64(a.Sent), "")
	l.out.aim("  not answered within 2 s", float64(a.Sent-a.InTime), "", 0)
	l.out.add("  p50 before", usual.P50, "ms")
	l.out.add("  p50 meanwhile", a.P50, "ms")
	l.out.add("  p99 before", usual.P99, "ms")
	l.out.aim("  p99 meanwhile", a.P99, "ms", slowdown*usual.P99)
	l.out.add("  longest", a.Max, "ms")
}

// traffic measures the orders placed in a time.
func (l *lab) traffic(w window) availability {
	l.shop.mu.Lock()
	defer l.shop.mu.Unlock()
	var in []sample
	for _, s := range l.shop.samples {
		if s.Begin >= w.from && s.Begin < w.to {
			in = append(in, s)
		}
	}
	return measure(in, nil, w.to)
}
