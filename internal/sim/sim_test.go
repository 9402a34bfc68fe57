package sim

import (
	"strings"
	"testing"
	"time"
)

func TestFirst(t *testing.T) {
	start := time.Now()
	var vs float64
	n := 0
	for seed := uint64(1); seed <= 20; seed++ {
		r := Run(Draw(seed, 0), nil, nil)
		vs += r.VirtualSeconds
		n++
		t.Logf("seed %d: %.1f s, %d events, %d orders, hash %x, %v", seed, r.VirtualSeconds, r.Events, r.Orders, r.Hash, time.Since(start))
		if r.Failure != nil {
			t.Errorf("%v\n%s\n%s", r.Failure, r.Plan.Faults(), strings.Join(r.Story[max(0, len(r.Story)-12):], "\n"))
		}
	}
	t.Logf("%d seeds in %v, %.0f virtual s", n, time.Since(start), vs)
}
