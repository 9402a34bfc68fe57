package pebblestore

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	s := mustOpen(t, "data", testConfig(vfs.NewMem()))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s)
	for range 3 {
		if err := put(s, true, strings.Repeat("x", 1000), "a"); err != nil {
			t.Fatal(err)
		}
	}
	m := s.Metrics()
	if m.Syncs != 3 || m.LogBytes < 3000 || m.MemTables != 1 || m.L0Files != 0 || m.Stalled {
		t.Errorf("after three writes: %+v", m)
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if m = s.Metrics(); m.L0Files+m.ReadAmp == 0 || m.DiskBytes == 0 {
		t.Errorf("after a flush: %+v", m)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "store_") || f.GetHelp() == "" {
			t.Errorf("metric %s: help %q", f.GetName(), f.GetHelp())
		}
		if f.GetName() == "store_sync_duration_seconds" && f.Metric[0].GetHistogram().GetSampleCount() != 3 {
			t.Errorf("the histogram has %d syncs, want 3", f.Metric[0].GetHistogram().GetSampleCount())
		}
	}
	mustClose(t, s)
	if m := s.Metrics(); m.Syncs != 0 {
		t.Errorf("metrics after Close: %+v, want zeros", m)
	}
}
