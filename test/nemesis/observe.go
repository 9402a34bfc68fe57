package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"hanse/client"
)

// observer asks every node again and again what it knows of its shards.
type observer struct {
	nodes []*client.Client
	now   func() time.Duration

	mu        sync.Mutex
	terms     map[string]uint64  // the highest of each shard
	leaders   map[leading]uint64 // the node that leads a shard in a term
	elections []election         // new terms with a leader
	split     []string           // two leaders of one term
}

type leading struct {
	shard string
	term  uint64
}

// election is a leader of a new term, when somebody first told of it.
type election struct {
	At    time.Duration
	Shard string
	Term  uint64
	Node  uint64
}

const observeEvery = 500 * time.Millisecond

func newObserver(nodes []*client.Client, now func() time.Duration) *observer {
	return &observer{nodes: nodes, now: now, terms: make(map[string]uint64), leaders: make(map[leading]uint64)}
}

// watch observes until ctx ends.
func (o *observer) watch(ctx context.Context) {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			o.look(ctx)
		}
	}
}

// look asks all nodes once; nil stands for one that does not answer.
func (o *observer) look(ctx context.Context) []*client.Shards {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answers := make([]*client.Shards, len(o.nodes))
	var wg sync.WaitGroup
	for i, c := range o.nodes {
		wg.Go(func() {
			if s, err := c.Shards(ctx); err == nil { // who does not answer is looked at again
				answers[i] = s
			}
		})
	}
	wg.Wait()
	for i, a := range answers {
		if a != nil {
			o.take(i+1, a.Shards)
		}
	}
	return answers
}

func (o *observer) take(node int, shards []client.Shard) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range shards {
		if s.Leader == 0 {
			continue
		}
		l := leading{s.ID, s.Term}
		if other, ok := o.leaders[l]; ok {
			if other != s.Leader {
				o.split = append(o.split, fmt.Sprintf("%s, term %d: node %d leads, and by the word of node %d, node %d", s.ID, s.Term, other, node, s.Leader))
			}
			continue
		}
		o.leaders[l] = s.Leader
		if s.Term > o.terms[s.ID] {
			if o.terms[s.ID] > 0 {
				o.elections = append(o.elections, election{o.now(), s.ID, s.Term, s.Leader})
			}
			o.terms[s.ID] = s.Term
		}
	}
}

// lagging tells which replicas are not where the others of their shard are; nothing when all are equal.
func lagging(answers []*client.Shards) (behind []string) {
	applied := make(map[string]map[int]uint64)
	for i, a := range answers {
		if a == nil {
			behind = append(behind, fmt.Sprintf("node %d does not answer", i+1))
			continue
		}
		for _, s := range a.Shards {
			if applied[s.ID] == nil {
				applied[s.ID] = make(map[int]uint64)
			}
			applied[s.ID][i+1] = s.Applied
			if s.Applied != s.Commit || s.Leader == 0 {
				behind = append(behind, fmt.Sprintf("%s on node %d: applied %d of %d, leader %d", s.ID, i+1, s.Applied, s.Commit, s.Leader))
			}
		}
	}
	for _, shard := range slices.Sorted(maps.Keys(applied)) {
		values := slices.Collect(maps.Values(applied[shard]))
		if slices.Min(values) != slices.Max(values) {
			behind = append(behind, fmt.Sprintf("%s: applied %v", shard, applied[shard]))
		}
	}
	return behind
}
