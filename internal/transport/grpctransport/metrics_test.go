package grpctransport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"hanse/internal/transport"
)

func TestMetrics(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Cluster, cfg.Node = "hanse", 1
	one, err := New(cfg, ignore)
	if err != nil {
		t.Fatal(err)
	}
	one.SetPeers(map[transport.NodeID]string{2: "two"})
	one.Send(2, transport.Call, request("12345678"))
	one.Send(2, transport.Call, transport.Message{})
	one.receiver.malformed.Add(3)

	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(one)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.Metric {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			labels := ""
			for _, l := range m.Label {
				labels += "{" + l.GetName() + "=" + l.GetValue() + "}"
			}
			got = append(got, fmt.Sprintf("%s%s %v", f.GetName(), labels, v))
		}
	}
	want := `transport_malformed_frames_total 3
transport_peer_connected{peer=2} 0
transport_peer_dropped_messages_total{peer=2} 1
transport_peer_queued_bytes{peer=2} 72
transport_peer_sent_bytes_total{peer=2} 0
transport_received_bytes_total 0
transport_received_frames_total 0
transport_received_messages_total 0
transport_refused_streams_total 0`
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("metrics\n%s\nwant\n%s", g, want)
	}
}
