package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"hanse/internal/replica"
	"hanse/internal/transport"
)

// replicaCollector shows the replicas of this node. Its labels are the shards, which are few and fixed.
type replicaCollector struct {
	self     transport.NodeID
	replicas interface{ Status() []replica.Status }
	gauges   []gauge
	leading  *prometheus.Desc
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
	c.leading = prometheus.NewDesc("replica_leading", "1 when this node leads the shard.", []string{"shard"}, nil)
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
	out <- c.leading
	for _, g := range c.gauges {
		out <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *replicaCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.replicas.Status() {
		leading := 0.0
		if s.Leader == c.self {
			leading = 1
		}
		out <- prometheus.MustNewConstMetric(c.leading, prometheus.GaugeValue, leading, s.Shard.String())
		for _, g := range c.gauges {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(s), s.Shard.String())
		}
	}
}
