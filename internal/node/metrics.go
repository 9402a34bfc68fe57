package node

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/notification"
	"hanse/internal/replica"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/transport"
)

// replicaCollector shows the replicas of this node. Its labels are shards and nodes, which are few and fixed.
type replicaCollector struct {
	self     transport.NodeID
	replicas interface{ Status() []replica.Status }
	gauges   []gauge
	lag      *prometheus.Desc
}

type gauge struct {
	desc  *prometheus.Desc
	value func(replica.Status) float64
}

func newReplicaCollector(self transport.NodeID, r interface{ Status() []replica.Status }) *replicaCollector {
	c := &replicaCollector{self: self, replicas: r}
	add := func(name, help string, value func(replica.Status) float64) {
		c.gauges = append(c.gauges, gauge{prometheus.NewDesc("replica_"+name, help, []string{"shard"}, nil), value})
	}
	truth := func(claim bool) float64 {
		if claim {
			return 1
		}
		return 0
	}
	c.lag = prometheus.NewDesc("replica_lag_entries", "Entries of the log that another node's replica does not have, on the leader.", []string{"shard", "node"}, nil)
	add("leading", "1 when this node leads the shard.", func(s replica.Status) float64 { return truth(s.Leader == self) })
	add("leader_known", "1 when the replica knows who leads.", func(s replica.Status) float64 { return truth(s.Leader != 0) })
	add("unapplied_entries", "Committed entries that are not applied yet.", func(s replica.Status) float64 { return float64(s.Commit - min(s.Applied, s.Commit)) })
	add("term", "Raft term.", func(s replica.Status) float64 { return float64(s.Term) })
	add("commit_index", "Last committed entry known here.", func(s replica.Status) float64 { return float64(s.Commit) })
	add("applied_index", "Last applied entry.", func(s replica.Status) float64 { return float64(s.Applied) })
	add("durable_index", "Last applied entry that a crash would not undo.", func(s replica.Status) float64 { return float64(s.Durable) })
	add("log_bytes", "Size of the log.", func(s replica.Status) float64 { return float64(s.LogBytes) })
	add("queued_commands", "Commands that wait to be proposed.", func(s replica.Status) float64 { return float64(s.Queued) })
	add("waiting_reads", "Reads that wait.", func(s replica.Status) float64 { return float64(s.Reads) })
	return c
}

// Describe implements prometheus.Collector.
func (c *replicaCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.lag
	for _, g := range c.gauges {
		out <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *replicaCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.replicas.Status() {
		name := s.Shard.String()
		for _, g := range c.gauges {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(s), name)
		}
		if s.Leader != c.self {
			continue
		}
		for _, r := range s.Replicas {
			if r.Node != c.self {
				node := strconv.FormatUint(uint64(r.Node), 10)
				out <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, float64(s.Last-min(r.Match, s.Last)), name, node)
			}
		}
	}
}

// backlogCollector shows what waits in the shards that this node leads, and what waits there for a person.
type backlogCollector struct {
	outboxes         func() map[shard.ID]int
	stuck            func(ctx context.Context, id shard.ID) (int, error)
	messages, orders *prometheus.Desc
	payments         *prometheus.Desc
}

// scrapeTimeout bounds one look at the stuck objects of a shard; one that does not answer has no figure.
const scrapeTimeout = time.Second

func newBacklogCollector(outboxes func() map[shard.ID]int, stuck func(context.Context, shard.ID) (int, error)) *backlogCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"shard"}, nil)
	}
	return &backlogCollector{
		outboxes: outboxes, stuck: stuck,
		messages: desc("reactor_outbox_messages", "Messages in the outbox that are not delivered yet, on the leader."),
		orders:   desc("saga_stuck_orders", "Orders with a step that waits for a person, on the leader; more than 1,000 count as 1,000."),
		payments: desc("payment_stuck_payments", "Payments with an operation that waits for a person, on the leader; more than 1,000 count as 1,000."),
	}
}

// Describe implements prometheus.Collector.
func (c *backlogCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.messages
	out <- c.orders
	out <- c.payments
}

// Collect implements prometheus.Collector.
func (c *backlogCollector) Collect(out chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, value int, id shard.ID) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), id.String())
	}
	for id, n := range c.outboxes() {
		put(c.messages, n, id)
		d := map[shard.Service]*prometheus.Desc{shard.Order: c.orders, shard.Payment: c.payments}[id.Service()]
		if d == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		if n, err := c.stuck(ctx, id); err == nil {
			put(d, n, id)
		}
		cancel()
	}
}

// stuck counts the orders or payments of a shard that wait for a person, a page of them at most, as this node's replica has them.
func (c *Client) stuck(ctx context.Context, id shard.ID) (int, error) {
	if id.Service() == shard.Payment {
		q := &paymentpb.Query{Body: &paymentpb.Query_Scan{Scan: &paymentpb.ScanPayments{Limit: countedStuck, Stuck: true}}}
		a, err := ask[paymentpb.PaymentList](ctx, c, id, q, rest.Consistency{Stale: true})
		return len(a.Value.GetPayments()), err
	}
	q := &orderpb.Query{Body: &orderpb.Query_Sagas{Sagas: &orderpb.ListSagas{Limit: countedStuck, Stuck: true}}}
	a, err := ask[orderpb.OrderList](ctx, c, id, q, rest.Consistency{Stale: true})
	return len(a.Value.GetOrders()), err
}

const countedStuck = 1000

// webhookMetrics counts deliveries to webhook receivers.
type webhookMetrics struct {
	deliveries *prometheus.CounterVec
	took       prometheus.Histogram
	resting    prometheus.Gauge
}

var outcomeNames = [...]string{
	notification.Accepted: "accepted", notification.Failed: "failed", notification.Throttled: "throttled",
	notification.Gone: "gone", notification.Skipped: "skipped",
}

func newWebhookMetrics() *webhookMetrics {
	m := &webhookMetrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "notification_deliveries_total", Help: "Deliveries to webhook receivers, by outcome.",
		}, []string{"outcome"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "notification_delivery_duration_seconds", Help: "Time of deliveries, whatever the outcome.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}),
		resting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "notification_receivers_resting", Help: "Webhook receivers that accept nothing at present.",
		}),
	}
	for _, name := range outcomeNames {
		m.deliveries.WithLabelValues(name)
	}
	return m
}

func (m *webhookMetrics) observe(o notification.Outcome, took time.Duration) {
	m.deliveries.WithLabelValues(outcomeNames[o]).Inc()
	m.took.Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (m *webhookMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect implements prometheus.Collector.
func (m *webhookMetrics) Collect(out chan<- prometheus.Metric) {
	m.deliveries.Collect(out)
	m.took.Collect(out)
	m.resting.Collect(out)
}
