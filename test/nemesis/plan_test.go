package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func everyKind() (all []kind) {
	for _, k := range kinds {
		all = append(all, k.kind)
	}
	return all
}

func TestPlans_keep_enough_have_every_kind_and_repeat(t *testing.T) {
	for _, of := range []struct{ nodes, atOnce int }{{3, 0}, {5, 0}, {5, 1}} {
		nodes, overlaps := of.nodes, 0
		for seed := uint64(1); seed <= 300; seed++ {
			cfg := planConfig{Seed: seed, Nodes: nodes, Length: 10 * time.Minute, Kinds: everyKind(), SmallDisk: nodes, AtOnce: of.atOnce}
			plan := makePlan(cfg)
			if err := keepsEnough(plan, nodes, of.atOnce); err != nil {
				t.Fatalf("seed %d, %d nodes: %v", seed, nodes, err)
			}
			if !reflect.DeepEqual(plan, makePlan(cfg)) {
				t.Fatalf("seed %d gives another plan the second time", seed)
			}
			seen := make(map[kind]bool)
			for i := range plan {
				f := &plan[i]
				seen[f.Kind] = true
				if f.end() > cfg.Length || f.For <= 0 {
					t.Fatalf("seed %d: %v lasts from %v to %v of %v", seed, f, f.At, f.end(), cfg.Length)
				}
				if i > 0 && f.At < plan[i-1].end() {
					if interfere(f.Kind, plan[i-1].Kind) {
						t.Fatalf("seed %d: %v while %v", seed, f, &plan[i-1])
					}
					overlaps++
				}
			}
			if len(seen) != len(kinds) {
				t.Fatalf("seed %d: %d kinds of faults in ten minutes, want all %d", seed, len(seen), len(kinds))
			}
		}
		if overlaps < 300 {
			t.Errorf("%d faults overlap in 300 plans of %d nodes, want some in each", overlaps, nodes)
		}
	}
}

func TestShortPlansToo(t *testing.T) {
	if plan := makePlan(planConfig{Seed: 1, Nodes: 3, Length: time.Minute}); plan != nil {
		t.Errorf("no kinds, and yet %v", plan)
	}
	if plan := makePlan(planConfig{Seed: 1, Nodes: 3, Length: calmBefore, Kinds: []kind{killNode}}); len(plan) != 0 {
		t.Errorf("%d faults in a run that ends before the first", len(plan))
	}
	if plan := makePlan(planConfig{Seed: 1, Nodes: 3, Length: time.Minute, Kinds: []kind{fullDisk}}); len(plan) != 0 {
		t.Errorf("a full disk without a small one: %v", plan)
	}
}

func TestKeepsEnough_notices_plans_that_do_not(t *testing.T) {
	at := func(f fault, at, long time.Duration) fault { f.At, f.For = at, long; return f }
	kill1, kill2 := fault{Kind: killNode, Nodes: []int{1}}, fault{Kind: killNode, Nodes: []int{2}}
	cut1 := fault{Kind: partition, Nodes: []int{1}, Links: both([]int{1}, []int{2, 3}), Trouble: trouble{Cut: true}}
	deaf1 := fault{Kind: oneWay, Nodes: []int{1}, Links: ways([]int{2, 3}, []int{1}), Trouble: trouble{Cut: true}}
	bridge3 := fault{Kind: bridge, Nodes: []int{1}, Links: both([]int{1}, []int{2}), Trouble: trouble{Cut: true}}
	lossy := fault{Kind: loss, Nodes: []int{1, 2, 3}, Links: ways([]int{1, 2, 3}, []int{1, 2, 3}), Trouble: trouble{Loss: 0.3}}
	all := fault{Kind: killAll, Nodes: []int{1, 2, 3}}
	const s = time.Second
	for name, c := range map[string]struct {
		plan []fault
		ok   bool
	}{
		"one after the other":               {[]fault{at(kill1, 0, s), at(kill2, 2*s, s)}, true},
		"two of three at once":              {[]fault{at(kill1, 0, 3*s), at(kill2, 2*s, s)}, false},
		"two by their edges":                {[]fault{at(kill1, 0, s), at(kill2, s, s)}, false},
		"dead and cut off, the same":        {[]fault{at(cut1, 0, 3*s), at(kill1, s, s)}, true},
		"one dead, another cut off":         {[]fault{at(cut1, 0, 3*s), at(kill2, s, s)}, false},
		"one dead, another deaf":            {[]fault{at(deaf1, 0, 3*s), at(kill2, s, s)}, false},
		"a bridge stands":                   {[]fault{at(bridge3, 0, 3*s)}, true},
		"the dead one is the bridge's side": {[]fault{at(bridge3, 0, 3*s), at(kill2, s, s)}, true},
		"the dead one is the bridge":        {[]fault{at(bridge3, 0, 3*s), at(fault{Kind: pauseNode, Nodes: []int{3}}, s, s)}, false},
		"loss is not death":                 {[]fault{at(lossy, 0, 3*s), at(kill2, s, s)}, true},
		"all, alone":                        {[]fault{at(all, 0, s), at(kill1, 2*s, s)}, true},
		"all, and something else":           {[]fault{at(all, 0, 3*s), at(kill1, 2*s, s)}, false},
	} {
		if err := keepsEnough(c.plan, 3, 0); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok %v", name, err, c.ok)
		}
	}
	two := []fault{at(kill1, 0, 3*s), at(kill2, 2*s, s)}
	if keepsEnough(two, 5, 0) != nil || keepsEnough(two, 5, 1) == nil {
		t.Error("two of five at once leave a majority, and more than one is not asked for")
	}
}

func TestShaperAddsTroublesUp(t *testing.T) {
	n := &fakeNetwork{}
	s := &shaper{network: n}
	l, other := link{1, 2}, link{2, 1}
	cut := &fault{Links: []link{l}, Trouble: trouble{Cut: true}}
	lossy := &fault{Links: []link{l, other}, Trouble: trouble{Loss: 0.25, Delay: time.Millisecond}}
	for _, step := range []struct {
		do   func() error
		want map[link]trouble
	}{
		{func() error { return s.add(t.Context(), cut) }, map[link]trouble{l: {Cut: true}}},
		{func() error { return s.add(t.Context(), lossy) }, map[link]trouble{l: {true, 0.25, time.Millisecond}, other: {false, 0.25, time.Millisecond}}},
		{func() error { return s.remove(t.Context(), cut) }, map[link]trouble{l: {false, 0.25, time.Millisecond}, other: {false, 0.25, time.Millisecond}}},
		{func() error { return s.remove(t.Context(), lossy) }, map[link]trouble{}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(n.links, step.want) {
			t.Errorf("links %v, want %v", n.links, step.want)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--minutes", "0.5", "--nodes", "5", "--seed", "7", "--faults", "kill,one-way"}, new(strings.Builder))
	if err != nil || o.length() != 30*time.Second || o.nodes != 5 || o.seed != 7 || !reflect.DeepEqual(o.faults, []kind{killNode, oneWay}) {
		t.Errorf("%+v, %v", o, err)
	}
	const again = "go run ./test/nemesis --seed 7 --disk volatile --minutes 30 --nodes 5"
	if o, err := parse(strings.Fields("--minutes 30 --nodes 5 --disk volatile --report r.html --seed 7"), new(strings.Builder)); err != nil || o.again != again {
		t.Errorf("%q, %v, want %q", o.again, err, again)
	}
	if o, err := parse(nil, new(strings.Builder)); err != nil || len(o.faults) != len(kinds) || o.seed == 0 {
		t.Errorf("without flags: %d faults, seed %d, %v", len(o.faults), o.seed, err)
	}
	for args, want := range map[string]bool{"--seed 2": false, "--seed 3": true, "--seed 2 --disk volatile": true, "--seed 3 --disk kept": false} {
		if o, err := parse(strings.Fields(args), new(strings.Builder)); err != nil || o.volatile() != want {
			t.Errorf("%s: volatile %v, %v", args, o.volatile(), err)
		}
	}
	if o, err := parse([]string{"--faults", "none"}, new(strings.Builder)); err != nil || len(o.faults) != 0 {
		t.Errorf("--faults none: %v, %v", o.faults, err)
	}
	for _, args := range []string{"--nodes 4", "--minutes 0", "--minutes NaN", "--rate -1", "--faults earthquake", "--at-once 2", "--at-once -1", "--provider good", "--disk floppy", "--network radio", "now", "--frobnicate"} {
		if _, err := parse(strings.Fields(args), new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}
