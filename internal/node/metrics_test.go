package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hanse/internal/notification"
	"hanse/internal/replica"
	"hanse/internal/shard"
)

// fixedStatus is two replicas of node 1: it leads one, of the other no leader is known.
type fixedStatus struct{}

func (fixedStatus) Status() []replica.Status {
	return []replica.Status{
		{
			Shard: shard.NewID(shard.Order, 0), Leader: 1, Term: 4, Last: 120, Commit: 110, Applied: 100, Durable: 90, LogBytes: 5000, Queued: 3, Reads: 2,
			Replicas: []replica.ReplicaStatus{{Node: 1, Match: 120, State: "leader"}, {Node: 2, Match: 118, State: "replicate"}, {Node: 3, State: "probe"}},
		},
		{
			Shard: shard.NewID(shard.Meta, 0), Term: 2, Last: 7, Commit: 7, Applied: 7,
			Replicas: []replica.ReplicaStatus{{Node: 1, State: "unknown"}, {Node: 2, State: "unknown"}},
		},
	}
}

// gather prints what a collector shows, a line for each series.
func gather(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.Metric {
			labels := ""
			for _, l := range m.Label {
				labels += "{" + l.GetName() + "=" + l.GetValue() + "}"
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			lines = append(lines, fmt.Sprintf("%s%s %v", f.GetName(), labels, v))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestReplicaMetrics(t *testing.T) {
	want := `replica_applied_index{shard=meta/0} 7
replica_applied_index{shard=order/0} 100
replica_commit_index{shard=meta/0} 7
replica_commit_index{shard=order/0} 110
replica_durable_index{shard=meta/0} 0
replica_durable_index{shard=order/0} 90
replica_lag_entries{node=2}{shard=order/0} 2
replica_lag_entries{node=3}{shard=order/0} 120
replica_leader_known{shard=meta/0} 0
replica_leader_known{shard=order/0} 1
replica_leading{shard=meta/0} 0
replica_leading{shard=order/0} 1
replica_log_bytes{shard=meta/0} 0
replica_log_bytes{shard=order/0} 5000
replica_queued_commands{shard=meta/0} 0
replica_queued_commands{shard=order/0} 3
replica_term{shard=meta/0} 2
replica_term{shard=order/0} 4
replica_unapplied_entries{shard=meta/0} 0
replica_unapplied_entries{shard=order/0} 10
replica_waiting_reads{shard=meta/0} 0
replica_waiting_reads{shard=order/0} 2`
	if got := gather(t, newReplicaCollector(1, fixedStatus{})); got != want {
		t.Errorf("metrics\n%s\nwant\n%s", got, want)
	}
}

func TestBacklogMetrics(t *testing.T) {
	order, payment, stock := shard.NewID(shard.Order, 0), shard.NewID(shard.Payment, 1), shard.NewID(shard.Inventory, 2)
	c := newBacklogCollector(
		func() map[shard.ID]int { return map[shard.ID]int{order: 7, payment: 1, stock: 0} },
		func(_ context.Context, id shard.ID) (int, error) {
			if id == payment {
				return 0, errUnavailable
			}
			return 3, nil
		})
	want := `reactor_outbox_messages{shard=inventory/2} 0
reactor_outbox_messages{shard=order/0} 7
reactor_outbox_messages{shard=payment/1} 1
saga_stuck_orders{shard=order/0} 3`
	if got := gather(t, c); got != want {
		t.Errorf("metrics\n%s\nwant\n%s", got, want)
	}
}

func TestWebhookMetrics(t *testing.T) {
	m := newWebhookMetrics()
	m.observe(notification.Accepted, time.Millisecond)
	m.observe(notification.Accepted, time.Second)
	m.observe(notification.Throttled, time.Minute)
	m.resting.Inc()
	want := `notification_deliveries_total{outcome=accepted} 2
notification_deliveries_total{outcome=failed} 0
notification_deliveries_total{outcome=gone} 0
notification_deliveries_total{outcome=skipped} 0
notification_deliveries_total{outcome=throttled} 1
notification_delivery_duration_seconds 3
notification_receivers_resting 1`
	if got := gather(t, m); got != want {
		t.Errorf("metrics\n%s\nwant\n%s", got, want)
	}
}
