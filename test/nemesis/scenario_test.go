package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"hanse/client"
)

func TestParseScenario(t *testing.T) {
	o, err := parse(strings.Fields("scenario failover --times 7 --rate 10 --seed 3"), new(strings.Builder))
	if err != nil || o.scenario.name != "failover" || o.scenario.times != 7 || o.rate != 10 || o.seed != 3 || o.nodes != 5 {
		t.Errorf("failover: %+v, %v", o, err)
	}
	// The process inside the namespaces is told everything again, and the last word counts.
	again := append(o.args, "--inside", "x", "--seed", "4")
	if o, err := parse(again, new(strings.Builder)); err != nil || o.scenario.times != 7 || o.inside != "x" || o.seed != 4 {
		t.Errorf("again: %+v, %v", o, err)
	}
	if o, err := parse(strings.Fields("scenario loss"), new(strings.Builder)); err != nil || o.length() != 10*time.Minute {
		t.Errorf("loss: %+v, %v", o, err)
	}
	for _, args := range []string{"scenario", "scenario earthquake", "scenario pause --times 0", "scenario loss --minutes -1", "scenario grow now", "scenario zone --rate 0"} {
		if _, err := parse(strings.Fields(args), new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

func TestGoalsAreReported(t *testing.T) {
	m := measurement{Scenario: "pause", Load: []float64{0.5, 1}}
	m.add("pauses", 30, "")
	m.aim("elections", 0, "", 0)
	m.aim("longest", 2000.5, "ms", 2000)
	if m.Figures[1].Missed || !m.Figures[2].Missed {
		t.Errorf("figures %+v, want the last alone to be missed", m.Figures)
	}
	var out strings.Builder
	m.print(&out)
	for _, want := range []string{"elections  0        at most 0\n", "longest    2000 ms  at most 2000 ms, missed\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed %q, want %q in it", out.String(), want)
		}
	}
}

func TestElected(t *testing.T) {
	before := map[string]uint64{"meta/0": 1, "order/0": 4}
	if n, which := elected(before, map[string]uint64{"meta/0": 1, "order/0": 4}); n != 0 {
		t.Errorf("equal terms: %d elections, %v", n, which)
	}
	if n, which := elected(before, map[string]uint64{"meta/0": 1, "order/0": 6}); n != 2 || len(which) != 1 {
		t.Errorf("a term that rose by 2: %d elections, %v", n, which)
	}
}

func TestBusiestLink(t *testing.T) {
	led := func(leader uint64, followers ...uint64) client.Shard {
		s := client.Shard{Leader: leader, Replicas: []client.Replica{{Node: leader}}}
		for _, f := range followers {
			s.Replicas = append(s.Replicas, client.Replica{Node: f})
		}
		return s
	}
	from, to := busiestLink(&client.Shards{Shards: []client.Shard{led(1, 2, 3), led(2, 1, 3), led(2, 4, 3)}})
	if from != 2 || to != 3 {
		t.Errorf("busiestLink = %v, %v, want 2, 3", from, to)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		counts map[uint64]int
		want   int
	}{
		{map[uint64]int{1: 9, 2: 9, 3: 8}, 1},
		{map[uint64]int{1: 12, 2: 0}, 12},
		{map[uint64]int{1: 3}, 0},
	} {
		if got := spread(test.counts); got != test.want {
			t.Errorf("spread(%v) = %d, want %d", test.counts, got, test.want)
		}
	}
}

func TestFair(t *testing.T) {
	for _, test := range []struct {
		counts map[uint64]int
		want   bool
	}{
		{map[uint64]int{1: 3, 2: 2, 3: 1}, true},
		{map[uint64]int{1: 4, 2: 1, 3: 1}, false},
		{map[uint64]int{1: 0, 2: 2, 3: 1}, false},
		{map[uint64]int{1: 0, 2: 1, 3: 1}, true},
		{map[uint64]int{1: 7, 2: 5, 3: 5}, false},
	} {
		if got := fair(test.counts); got != test.want {
			t.Errorf("fair(%v) = %v, want %v", test.counts, got, test.want)
		}
	}
}

func TestGrown(t *testing.T) {
	before := map[int]float64{1: 100, 2: 50}
	if got := grown(before, map[int]float64{1: 130, 3: 7}); got != 37 {
		t.Errorf("grown without node 2 and with node 3 = %v, want 37", got)
	}
}

func TestTrafficIsOfItsTime(t *testing.T) {
	l := &lab{shop: &shop{samples: []sample{
		{Begin: time.Second, Took: 10 * time.Millisecond, Answered: true},
		{Begin: 2 * time.Second, Took: 3 * time.Second, Answered: true}, // too late for its customer
		{Begin: 3 * time.Second},
		{Begin: 9 * time.Second, Took: time.Hour, Answered: true},
	}}}
	if a := l.traffic(window{2 * time.Second, 9 * time.Second}); a.Sent != 2 || a.InTime != 0 || !reflect.DeepEqual(a.Max, 3000.0) {
		t.Errorf("traffic = %+v", a)
	}
}
