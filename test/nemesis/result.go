package main

import (
	"fmt"
	"slices"
	"time"
)

// result is what a run has shown.
type result struct {
	Passed   bool    `json:"passed"`
	Revision string  `json:"revision,omitempty"`
	Again    string  `json:"again"` // the command that draws the same plan
	Seed     uint64  `json:"seed"`
	Nodes    int     `json:"nodes"`
	Minutes  float64 `json:"minutes"`
	Rate     float64 `json:"orders_per_second"`
	Network  string  `json:"network"`
	Disk     string  `json:"disk"`
	Started  string  `json:"started"`

	Orders       int               `json:"orders"`
	KeyOps       int               `json:"key_operations"`
	Checks       []check           `json:"checks"`
	Availability availability      `json:"availability"`
	Elections    int               `json:"elections"`
	Stalls       []stall           `json:"stalls,omitempty"`
	Faults       []faultResult     `json:"faults"`
	Skipped      map[string]string `json:"skipped,omitempty"`
	Pictures     []string          `json:"pictures,omitempty"`

	samples   []sample
	elections []election
	length    time.Duration
}

// check is one promise, and what is wrong with it.
type check struct {
	Name     string   `json:"name"`
	Claim    string   `json:"claim"`
	Looked   string   `json:"looked_at"` // what it has looked at
	Passed   bool     `json:"passed"`
	Failures []string `json:"failures,omitempty"`
}

// faultResult is a fault as it was injected. Times are in seconds since the beginning.
type faultResult struct {
	Kind  kind    `json:"kind"`
	Nodes []int   `json:"nodes,omitempty"`
	Text  string  `json:"text,omitempty"`
	Began float64 `json:"began"`
	Ended float64 `json:"ended"`
	Whole float64 `json:"whole"` // when all nodes were ready again; -1 if not before the run was over
	Error string  `json:"error,omitempty"`
	// Sent are the orders placed between Began and Whole, InTime those of them that were answered within 2 s.
	Sent   int `json:"sent"`
	InTime int `json:"in_time"`
}

// stall is a time in which the machine gave this program no processor, in seconds since the beginning.
type stall struct {
	Began float64 `json:"began"`
	Ended float64 `json:"ended"`
}

// add notes a check. Only the first failures are named.
func (r *result) add(name, claim, looked string, failures []string) {
	c := check{Name: name, Claim: claim, Looked: looked, Passed: len(failures) == 0}
	if n := len(failures); n > maxNamed {
		failures = append(slices.Clone(failures[:maxNamed]), fmt.Sprintf("and %d more", n-maxNamed))
	}
	c.Failures = failures
	r.Checks = append(r.Checks, c)
}

// availability is how customers fared. Durations are in milliseconds.
type availability struct {
	Sent     int `json:"sent"`
	InTime   int `json:"in_time"`
	Answered int `json:"answered"`
	// Overall is the share of orders with an answer within 2 s, Calm that of the orders placed when neither a fault nor a stall
	// of the machine was near.
	Overall   float64 `json:"overall"`
	CalmSent  int     `json:"calm_sent"`
	Calm      float64 `json:"calm"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	CalmP50   float64 `json:"calm_p50_ms"`
	CalmP99   float64 `json:"calm_p99_ms"`
	LongestMS float64 `json:"longest_gap_ms"` // without an answer to any order
}

// window is a time in which something was wrong.
type window struct{ from, to time.Duration }

// measure computes the availability of a run from its samples. Faults are the windows from the beginning of a fault until all nodes were
// ready again; an order is calm when none was open while its customer waited.
func measure(samples []sample, faults []window, length time.Duration) (a availability) {
	var all, calm, answers []time.Duration
	calmInTime := 0
	for _, s := range samples {
		a.Sent++
		if s.timely() {
			a.InTime++
		}
		if s.Answered {
			a.Answered++
			all = append(all, s.Took)
			answers = append(answers, s.Begin+s.Took)
		}
		near := slices.ContainsFunc(faults, func(w window) bool { return s.Begin < w.to && s.Begin+max(s.Took, 0) > w.from })
		if near {
			continue
		}
		a.CalmSent++
		if s.timely() {
			calmInTime++
		}
		if s.Answered {
			calm = append(calm, s.Took)
		}
	}
	a.Overall, a.Calm = share(a.InTime, a.Sent), share(calmInTime, a.CalmSent)
	a.P50, a.P99, a.Max = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	a.CalmP50, a.CalmP99 = quantile(calm, 0.5), quantile(calm, 0.99)
	slices.Sort(answers)
	last := time.Duration(0)
	for _, at := range append(answers, length) {
		a.LongestMS = max(a.LongestMS, milliseconds(at-last))
		last = max(last, at)
	}
	return a
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// quantile returns the q-th of the durations in milliseconds, 0 for none. It sorts them.
func quantile(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return milliseconds(d[min(int(q*float64(len(d))), len(d)-1)])
}

// collect takes what the run has shown into the result, before the checks look at the cluster.
func (r *runner) collect(s *shop, n *nemesis, o *observer) {
	res := &r.result
	res.samples, res.length = s.samples, r.cfg.length()
	var windows []window
	for _, in := range n.injections {
		f := faultResult{Kind: in.Kind, Nodes: in.Nodes, Text: in.Text, Began: in.Began.Seconds(), Ended: in.Ended.Seconds(), Whole: -1}
		w := window{in.Began, res.length}
		if in.Whole >= 0 {
			f.Whole, w.to = in.Whole.Seconds(), in.Whole
		}
		if in.Err != nil {
			f.Error = in.Err.Error()
		}
		for _, o := range s.samples {
			if o.Begin < w.from || o.Begin > w.to {
				continue
			}
			f.Sent++
			if o.timely() {
				f.InTime++
			}
		}
		res.Faults = append(res.Faults, f)
		windows = append(windows, w)
	}
	for _, w := range r.stalls {
		res.Stalls = append(res.Stalls, stall{w.from.Seconds(), w.to.Seconds()})
		windows = append(windows, w)
	}
	res.Availability = measure(s.samples, windows, res.length)
	o.mu.Lock()
	res.elections = slices.Clone(o.elections)
	o.mu.Unlock()
	res.Elections = len(res.elections)
}
